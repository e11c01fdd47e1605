"""Service addresses as values: from services to elements of nft maps, and from a change to its own. Pure.

A virtual address leads by one map (`vip4`) to the chain of its method and its number of members, and that
chain by a second (`pick4`: virtual address and number → member) to one of them; no service has a chain, rule
or set of its own (docs/adr/0014-service-addresses-in-two-maps.md). Keys hold addresses only, so every port
and protocol of a service leads to the member's same port. Invariant: after any sequence of changes the ledger
holds what `Ledger` would hold if it were made anew of the services that are left, and lingering members.

Elements are bytes as the kernel holds them, key → data: addresses in network order, numbers in the
processor's, each part of a key padded to four bytes (linux/netfilter/nf_tables.h, concatenations).
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Mapping
from itertools import count
from typing import Literal

from model.errors import InvalidInput, Problem
from model.spec import Publish, Struct
from net import portelements

Method = Literal["round-robin", "random", "source-hash", "sticky"]
SHORT: Mapping[Method, str] = {
    "round-robin": "rr",
    "random": "random",
    "source-hash": "hash",
    "sticky": "sticky",
}
"""First word of a method's chains."""
LANES = 16
"""Round robin counts per rule, not per service: services that are asked in turn must not share one counter,
or each would always give the same member. By its address a service is in one of so many chains."""
SETS = (
    *("vip4", "pick4", "sticky4", "served4", "self4"),
    *("vip6", "pick6", "sticky6", "served6", "self6"),
    *("inner4", "inner6"),
    *portelements.SETS,
)
"""vip: address → chain; pick: address and number → member; sticky: addresses that remember their clients;
served: members, whose packets are tracked; self: this host's members twice, source and destination;
inner: this host's members by what others call them. What published ports have is in `net.portelements`."""
VERDICTS = ("vip4", "vip6", "port4", "port6")
"""Those whose data is a chain's name."""
_PICKS = (
    *(("pick4", "sticky4"), ("pick6", "sticky6")),
    *(("portpick4", "portsticky"), ("portpick6", "portsticky")),
)
"""By which a member is found, each with its set of what remembers clients."""

_NUMBER = struct.Struct("=I")
Elements = dict[str, dict[bytes, bytes]]
"""Set of `SETS` → key → data; the data of a set's element is empty, of one of `VERDICTS` the chain's name."""


class ServiceMember(Struct):
    """Where one ready instance answers; a family it does not have is empty."""

    ipv4: str = ""
    ipv6: str = ""
    inner4: str = ""
    """On its own host, where that is another one: by which it leaves, so that it answers with it, too."""
    inner6: str = ""


class VirtualService(Struct):
    """One service's address on one network; without any, its published ports, open here or not. Members in a
    stable order: `source-hash` counts on it."""

    ipv4: str = ""
    ipv6: str = ""
    members: tuple[ServiceMember, ...] = ()
    method: Method = "round-robin"
    ports: tuple[Publish, ...] = ()
    """Open on this host; `published` is never 0."""


NOBODY = b""


class Flow(Struct):
    """Traffic of a virtual address that goes to one member; packed addresses. Of a published port, its key
    (`net.portelements`) stands for the virtual address; `NOBODY` then means datagrams that came to this host
    itself before the port was open, of clients that keep their socket."""

    vip: bytes
    member: bytes
    sticky: bool = False
    """Clients may be remembered for it."""


class ElementChange(Struct):
    """One transaction's elements per set: `gone` leave first."""

    gone: Mapping[str, tuple[bytes, ...]] = {}
    new: Mapping[str, Mapping[bytes, bytes]] = {}

    @property
    def empty(self) -> bool:
        return not self.gone and not self.new

    @property
    def size(self) -> int:
        return sum(map(len, self.gone.values())) + sum(map(len, self.new.values()))


class ServiceChange(Struct):
    """What changes of services mean for the kernel."""

    elements: ElementChange
    left: tuple[Flow, ...] = ()
    """What leads elsewhere now."""


class Ledger:
    """The services of this host and their elements. Methods cost what changes, not what there is. `here` are
    the blocks from which this host's containers have their addresses."""

    def __init__(
        self, services: Mapping[str, VirtualService] | None = None, here: Iterable[str] = ()
    ) -> None:
        self.services: dict[str, VirtualService] = {}
        self.elements: Elements = {name: {} for name in SETS}
        self.lingering: set[bytes] = set()
        """Members that no service leads to any more, still served."""
        self._uses: dict[bytes, int] = {}
        self._here = _spans(here)
        if services:
            self.change(services)

    def difference(self, services: Mapping[str, VirtualService]) -> dict[str, VirtualService | None]:
        """The changes that make these all the services there are."""
        changes: dict[str, VirtualService | None] = dict.fromkeys(self.services.keys() - services.keys())
        changes |= {key: wanted for key, wanted in services.items() if self.services.get(key) != wanted}
        return changes

    def change(self, changes: Mapping[str, VirtualService | None]) -> ServiceChange:
        """Take services in, replace them or, with None, forget them."""
        then, now = _none(), _none()
        for key, service in changes.items():
            owner = self.services.pop(key, None)
            if owner is not None:
                self._count(_enter(owner, then), -1)
            if service is not None:
                self._count(_enter(service, now), 1)
                self.services[key] = service
        self._serve(then, now)
        elements = delta(then, now)
        for name, keys in elements.gone.items():
            for element in keys:
                del self.elements[name][element]
        for name, found in elements.new.items():
            self.elements[name].update(found)
        return ServiceChange(elements=elements, left=tuple(_left(then, now)))

    def release(self, members: Iterable[bytes]) -> ElementChange:
        """Let go of members that left, once nobody is connected to them any more."""
        then = _none()
        for member in set(members) & self.lingering:
            self.lingering.discard(member)
            self._track(member, then)
        for name, found in then.items():
            for key in found:
                self.elements[name].pop(key, None)
        return delta(then, {})

    def published(self) -> set[tuple[str, int]]:
        """(protocol, port) of all services here."""
        return {(p.protocol, p.published) for service in self.services.values() for p in service.ports}

    def adopt(self, served: Iterable[bytes]) -> None:
        """Members that were served before this ledger was made; they linger."""
        for member in served:
            if member not in self._uses:
                self.lingering.add(member)
                self._track(member, self.elements)

    def _count(self, members: Iterable[bytes], step: int) -> None:
        for member in members:
            self._uses[member] = self._uses.get(member, 0) + step

    def _serve(self, then: Elements, now: Elements) -> None:
        """Members are known for as long as one service leads to them, and on until they are released: those
        connected to them when they left go on."""
        touched = {m for e in (then, now) for name in ("served4", "served6") for m in e[name]}
        for elements in (then, now):
            for name in ("served4", "served6", "self4", "self6"):
                elements[name] = {}
        for member in touched:
            if self._uses[member]:
                self.lingering.discard(member)
                if member not in self.elements[_family("served", member)]:
                    self._track(member, now)
            else:
                del self._uses[member]
                self.lingering.add(member)

    def _track(self, member: bytes, into: Elements) -> None:
        into[_family("served", member)][member] = b""
        if _inside(member, self._here):
            into[_family("self", member)][member + member] = b""


def delta(
    have: Mapping[str, Mapping[bytes, bytes]], want: Mapping[str, Mapping[bytes, bytes]]
) -> ElementChange:
    """The elements to take out and put in; one whose data differs is in both."""
    gone: dict[str, tuple[bytes, ...]] = {}
    new: dict[str, dict[bytes, bytes]] = {}
    for name in SETS:
        then, now = have.get(name, {}), want.get(name, {})
        if then == now:
            continue
        if out := tuple(key for key, data in then.items() if now.get(key) != data):
            gone[name] = out
        if added := {key: data for key, data in now.items() if then.get(key) != data}:
            new[name] = added
    return ElementChange(gone=gone, new=new)


def served(elements: Mapping[str, Iterable[bytes]]) -> frozenset[bytes]:
    """The members among elements, of both families."""
    return frozenset(member for name in ("served4", "served6") for member in elements.get(name, ()))


def elements_of(service: VirtualService) -> Elements:
    """One service's. An address without members has none: it is refused (see `net.servicechains`)."""
    found = _none()
    _enter(service, found)
    return found


def _enter(service: VirtualService, into: Elements) -> list[bytes]:
    """Add one service's elements; its members."""
    entered: list[bytes] = []
    for digit, address, members in (
        ("4", service.ipv4, [(m.ipv4, m.inner4) for m in service.members if m.ipv4]),
        ("6", service.ipv6, [(m.ipv6, m.inner6) for m in service.members if m.ipv6]),
    ):
        packed = [pack(inner or outer) for outer, inner in members]
        outer = {pack(outer): pack(inner) for outer, inner in members if inner}
        into[f"inner{digit}"].update(outer)
        numbered = list(zip(_numbers(), packed, strict=False))
        for port in service.ports:
            if port.proxy_protocol:
                continue  # the proxy's (net.proxied)
            at = portelements.key(port.protocol, port.published)
            chain = chain_name(service.method, len(packed), at[:6])
            portelements.enter(port, chain, digit, numbered, into)
            if service.method == "sticky":
                into["portsticky"][at] = b""
        if address and packed:
            vip = pack(address)
            into[f"vip{digit}"][vip] = chain_name(service.method, len(packed), vip).encode()
            into[f"pick{digit}"].update((vip + number, member) for number, member in numbered)
            if service.method == "sticky":
                into[f"sticky{digit}"][vip] = b""
        if address or not (service.ipv4 or service.ipv6):
            tracked = [*packed, *outer]
            into[f"served{digit}"].update(dict.fromkeys(tracked, b""))
            entered += tracked
    return entered


def _family(name: str, address: bytes) -> str:
    return name + ("4" if len(address) == 4 else "6")


def _none() -> Elements:
    return {name: {} for name in SETS}


def _numbers() -> Iterable[bytes]:
    return map(_NUMBER.pack, count())


def chain_name(method: Method, count: int, vip: bytes) -> str:
    """Of the chain that picks one of `count` members of what ends in these bytes."""
    lane = f"-{vip[-1] % LANES}" if method == "round-robin" else ""
    return f"{SHORT[method]}-{count}{lane}"


def pack(address: str) -> bytes:
    """In network order. Raises ValueError."""
    if ":" in address:
        return ipaddress.IPv6Address(address).packed
    parts = address.split(".")
    if len(parts) != 4:
        raise ValueError(f"{address!r} is no address")
    return bytes(map(int, parts))


def problems(services: Mapping[str, VirtualService], ranges: Iterable[str]) -> tuple[Problem, ...]:
    """What is wrong with services: networks are apart, and addresses without members are refused, only within
    the ranges set aside for service addresses."""
    spans = _spans(ranges)
    found: list[Problem] = []
    for key, service in services.items():
        for address in (service.ipv4, service.ipv6):
            if address and not (_is_address(address) and _inside(pack(address), spans)):
                reason = f"{address} is not in a range for service addresses"
                found.append(Problem(path=f"services.{key}", message=reason))
        for member in service.members:
            for address in (member.ipv4, member.ipv6, member.inner4, member.inner6):
                if address and not _is_address(address):
                    found.append(Problem(path=f"services.{key}.members", message=f"{address} is no address"))
    return tuple(found)


def refuse(found: tuple[Problem, ...]) -> None:
    """Raises InvalidInput with all problems, if there are any."""
    if found:
        raise InvalidInput.of("services of this host", found)


def _is_address(text: str) -> bool:
    try:
        return bool(pack(text))
    except ValueError:
        return False


def _spans(ranges: Iterable[str]) -> tuple[tuple[bytes, bytes], ...]:
    """First and last address of each range."""
    wholes = map(ipaddress.ip_network, ranges)
    return tuple((whole.network_address.packed, whole.broadcast_address.packed) for whole in wholes)


def _inside(address: bytes, spans: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(low <= address <= high for low, high in spans if len(low) == len(address))


def _left(then: Elements, now: Elements) -> Iterable[Flow]:
    moved = {at for at, port in then["target"].items() if now["target"].get(at, port) != port}
    for picks, sticky in _PICKS:
        stay = {(key[:-4], member) for key, member in now[picks].items() if key[:-4] not in moved}
        for vip, member in {(key[:-4], member) for key, member in then[picks].items()} - stay:
            yield Flow(vip=vip, member=member, sticky=vip in then[sticky])
    before, after = (
        {key[:-4] for name in ("portpick4", "portpick6") for key in found[name]} for found in (then, now)
    )
    yield from (Flow(vip=at, member=NOBODY) for at in after - before if portelements.datagram_port(at))
