"""From a query and who sent it to the answer, or to the word that others must be asked. No IO.

What is ours: the names of the networks that the asker is on (the first of them that knows a name answers for
it), the reverse names of their addresses, `localhost` (RFC 6761), `tasks.X` and `_…` below a name X of ours.
A name of ours never goes out: asked for a type that it has not it has no data, which is no error (musl gives
up a name that is said not to exist for IPv6). All other names are forwarded, as Docker does; whoever is on
internal networks only is told that they don't exist.

SRV (RFC 2782): `_PORT._tcp.X` for a number PORT lists the ready tasks of service X, or the container X, with
that port; `_tcp.X` with port 0; `_udp` and `_sctp` alike. Answers are kept packed, as long as the state
stands; `turn` rotates their addresses. Invariant: equal state, query, source and turn give the equal answer.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from net.resolver import codec
from net.resolver.codec import Query
from net.resolver.state import Client, ResolverState, Zone, fits

TTL = 1
"""Seconds. Asking anew costs next to nothing, a stale address costs a connection."""
MOST_ADDRESSES, MOST_TARGETS = 1000, 100
"""In one answer: the first so many; 64 KiB hold them."""
_MOST_PACKED = 4096
_TRANSFERS = (251, 252)
_OWNER = b"\xc0\x0c"
"""A pointer to the question's name."""
_SRV = re.compile(r"(?:_(0|[1-9][0-9]{0,4})\.)?_(?:tcp|udp|sctp)\.(.+)\Z")
_LOOPBACK = ("127.0.0.1", "::1")


class Forward(NamedTuple):
    """Ask these, or the host's where there are none."""

    upstreams: tuple[str, ...]


class Found(NamedTuple):
    """An answer before it is bytes."""

    rcode: int = codec.NOERROR
    answers: tuple[bytes, ...] = ()
    extras: tuple[bytes, ...] = ()
    alike: bool = False
    """All records are equally long and in no order."""


NOTHING, NO_SUCH_NAME = Found(), Found(rcode=codec.NXDOMAIN)


class Packed:
    """An answer as bytes but for its id: head, records, tail. By UDP it may have to be shorter: other counts
    in its head, and fewer of its records."""

    __slots__ = ("body", "head", "short", "short_body", "step", "tail")

    def __init__(self, query: Query, found: Found) -> None:
        full = codec.response(query, found.rcode, flags=codec.AA, answers=found.answers, extras=found.extras)
        short = codec.truncated(full, min(query.size, codec.MOST_UDP))
        self.step = len(found.answers[0]) if found.alike and len(found.answers) > 1 else 0
        size = self.step * len(found.answers)
        self.head, self.body, self.tail = full[2 : query.end], full[query.end :], b""
        self.short, self.short_body = short[2:], 0
        if self.step:
            self.body, self.tail = full[query.end : query.end + size], full[query.end + size :]
            self.short, self.short_body = short[2 : query.end], len(short) - query.end - len(self.tail)
        if len(short) == len(full):
            self.short = b""

    def reply(self, ident: bytes, turn: int, udp: bool) -> bytes:
        body = self.body
        if self.step:
            at = turn * self.step % len(body)
            body = body[at:] + body[:at]
        if udp and self.short:
            return ident + self.short + body[: self.short_body] + self.tail
        return ident + self.head + body + self.tail


Links = tuple[tuple[str, str], ...]


class Scope:
    """What one set of networks makes known, to all who are on just these and have the same links."""

    def __init__(self, zones: Sequence[Zone], links: Links = ()) -> None:
        self._links = dict(links)
        self.zones = [(zone, f".{zone.network}") for zone in zones]
        self.ranges = [ipaddress.ip_network(cidr) for zone in zones for cidr in zone.ranges]
        self.packed: dict[tuple[bool, bytes], Packed] = {}

    def of(self, zones: Sequence[Zone]) -> bool:
        """Whether it is of these very zones."""
        return len(zones) == len(self.zones) and all(
            a is b for a, (b, _) in zip(zones, self.zones, strict=True)
        )

    def find(self, name: str) -> tuple[Zone, str] | None:
        """The zone that knows the name, and the name in it. A link comes before all else, as in Docker."""
        linked = self._links.get(name)
        found = self._known(linked) if linked is not None else None
        return found or self._known(name)

    def _known(self, name: str) -> tuple[Zone, str] | None:
        for zone, suffix in self.zones:
            if name in zone.names:
                return zone, name
            if name.endswith(suffix) and (inner := name[: -len(suffix)]) in zone.names:
                return zone, inner
        return None


class Answerer:
    """Answers from one state. Raises ValueError when made of a state that makes no sense. Of the one `before`
    it keeps the packed answers of networks that are as they were."""

    def __init__(self, state: ResolverState, before: Answerer | None = None) -> None:
        scopes: dict[tuple[tuple[str, ...], Links], Scope] = {}
        self._scopes = scopes
        self._clients: dict[str, tuple[Client, Scope]] = {}
        for address, client in state.clients.items():
            key = client.zones, tuple(sorted(client.links.items()))
            scope = scopes.get(key)
            if scope is None:
                zones = [state.zones[ident] for ident in client.zones if ident in state.zones]
                old = before._scopes.get(key) if before is not None else None
                scope = old if old is not None and old.of(zones) else Scope(zones, key[1])
                scopes[key] = scope
            self._clients[address] = client, scope

    def answer(self, data: bytes, source: str, turn: int, *, udp: bool) -> bytes | Forward | None:
        """None: say nothing."""
        client, scope = self._clients.get(source, (None, None))
        if client is None or scope is None:
            return _refusal(data)
        packed = scope.packed.get((client.outside, data[2:]))
        if packed is not None:
            return packed.reply(data[:2], turn, udp)
        try:
            query = codec.read_query(data)
        except codec.Malformed:
            return codec.error(data, codec.FORMERR)
        if query is None:
            return None
        if (code := _unsupported(query)) is not None:
            return codec.response(query, code)
        found = look_up(query, scope)
        if found is None:
            if client.outside:
                return Forward(client.upstreams)
            found = NO_SUCH_NAME
        packed = Packed(query, found)
        if len(scope.packed) >= _MOST_PACKED:
            scope.packed.clear()
        if len(data) <= codec.LEAST_UDP:
            scope.packed[client.outside, data[2:]] = packed
        return packed.reply(data[:2], turn, udp)


def _refusal(data: bytes) -> bytes | None:
    try:
        query = codec.read_query(data)
    except codec.Malformed:
        return codec.error(data, codec.FORMERR)
    return None if query is None else codec.response(query, codec.REFUSED)


def _unsupported(query: Query) -> int | None:
    if query.opcode:
        return codec.NOTIMP
    if query.edns > 0:
        return codec.BADVERS
    if query.class_ not in (codec.IN, codec.ANY_CLASS) or query.type in _TRANSFERS:
        return codec.REFUSED
    return None


def look_up(query: Query, scope: Scope) -> Found | None:
    """None when the name is not ours."""
    name = query.name
    if name == "localhost" or name.endswith(".localhost"):
        return addresses(_LOOPBACK, query.type)
    known = scope.find(name)
    if known is not None:
        zone, inner = known
        return addresses(zone.names[inner], query.type)
    if name.endswith(".arpa"):
        return _reverse(query, scope)
    if name.startswith("tasks."):
        return NO_SUCH_NAME if scope.find(name.removeprefix("tasks.")) else None
    return _service(query, scope) if name.startswith("_") else None


def addresses(texts: Iterable[str], type_: int) -> Found:
    kinds = {codec.A: (4,), codec.AAAA: (6,), codec.ANY: (4, 6)}.get(type_, ())
    records = tuple(_address(_OWNER, text) for text in texts if (6 if ":" in text else 4) in kinds)
    return Found(answers=records[:MOST_ADDRESSES], alike=len(kinds) == 1)


def _address(owner: bytes, text: str) -> bytes:
    address = ipaddress.ip_address(text)
    return codec.record(owner, codec.A if address.version == 4 else codec.AAAA, TTL, address.packed)


def _reverse(query: Query, scope: Scope) -> Found | None:
    address = reverse_address(query.name)
    if address is None:
        return None
    told = next((z.reverse[str(address)] for z, _ in scope.zones if str(address) in z.reverse), None)
    if told is None:
        return NO_SUCH_NAME if any(address in known for known in scope.ranges) else None
    if query.type not in (codec.PTR, codec.ANY):
        return NOTHING
    return Found(answers=(codec.record(_OWNER, codec.PTR, TTL, codec.encode_name(told)),))


def reverse_address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Of `4.3.2.1.in-addr.arpa` and its kin (RFC 1035 3.5, RFC 3596 2.5)."""
    labels = name.split(".")
    text = ""
    if labels[-2:] == ["in-addr", "arpa"] and len(labels) == 6:
        text = ".".join(labels[3::-1])
    elif labels[-2:] == ["ip6", "arpa"] and len(labels) == 34 and all(len(x) == 1 for x in labels[:32]):
        digits = "".join(labels[31::-1])
        text = ":".join(digits[i : i + 4] for i in range(0, 32, 4))
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _service(query: Query, scope: Scope) -> Found | None:
    base = re.sub(r"\A(?:_[^.]*\.){1,2}", "", query.name)
    known = scope.find(base)
    if known is None:
        return None
    match = _SRV.match(query.name)
    if match is None or match[2] != base or int(match[1] or 0) > 0xFFFF:
        return NO_SUCH_NAME
    if query.type not in (codec.SRV, codec.ANY):
        return NOTHING
    zone, inner = known
    answers, extras = [], []
    numbers = struct.pack("!HHH", 0, 0, int(match[1] or 0))
    for task in zone.tasks.get(inner, (inner,))[:MOST_TARGETS]:
        full = f"{task}.{zone.network}"
        target = codec.encode_name(full if fits(full) else task)
        answers.append(codec.record(_OWNER, codec.SRV, TTL, numbers + target))
        extras += [_address(target, text) for text in zone.names.get(task, ())[:2]]
    return Found(answers=tuple(answers), extras=tuple(extras))
