"""Ranges of addresses and what ports are allowed in them: cut so that they never overlap. Pure.

Addresses are numbers here, one family at a time. Invariant: what `pieces` gives is apart from each other and
allows exactly what went in, whatever the ranges are and however they lie in each other.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

from model.policy import PolicyPort
from model.spec import Struct

Span = tuple[int, int]
"""First and last, both included: addresses of one family as numbers, or ports."""
Ports = Mapping[str, tuple[Span, ...]]
"""By protocol, in order, apart from each other. Under "": everything, whatever the protocol."""
ALL_PORTS: Span = (0, 65535)
EVERYTHING: Ports = {"": (ALL_PORTS,)}
BITS = {4: 32, 6: 128}


class Allowance(Struct):
    """Spans of addresses per family that a rule lets through, for its ports."""

    spans: Mapping[int, tuple[Span, ...]]
    ports: tuple[PolicyPort, ...] = ()


def whole(version: int) -> Span:
    """All addresses of a family."""
    return 0, (1 << BITS[version]) - 1


@lru_cache(1 << 16)
def span_of(text: str) -> tuple[int, Span]:
    """Of a range, or of one address. Raises ValueError. Records are read again and again: each text once."""
    network = ipaddress.ip_network(text)
    return network.version, (int(network[0]), int(network[-1]))


def address_span(text: str) -> tuple[int, Span]:
    """Of one address; a range is none. Raises ValueError."""
    address = ipaddress.ip_address(text)
    return address.version, (int(address), int(address))


def lies_in(one: tuple[int, Span], ranges: Iterable[tuple[int, Span]]) -> bool:
    """Whether one of the ranges holds all of it."""
    version, (first, last) = one
    return any(family == version and low <= first and last <= high for family, (low, high) in ranges)


def by_family(spans: Iterable[tuple[int, Span]]) -> Mapping[int, tuple[Span, ...]]:
    found: dict[int, list[Span]] = {}
    for version, span in spans:
        found.setdefault(version, []).append(span)
    return {version: tuple(sorted(set(several))) for version, several in found.items()}


def minus(wholes: Iterable[tuple[int, Span]], holes: Iterable[tuple[int, Span]]) -> list[tuple[int, Span]]:
    """Wholes without the holes."""
    left = list(wholes)
    for version, (low, high) in holes:
        cut: list[tuple[int, Span]] = []
        for family, (first, last) in left:
            if family != version or last < low or high < first:
                cut.append((family, (first, last)))
                continue
            if first < low:
                cut.append((family, (first, low - 1)))
            if high < last:
                cut.append((family, (high + 1, last)))
        left = cut
    return left


def pieces(version: int, allowed: Sequence[Allowance]) -> Iterable[tuple[Span, Ports]]:
    """The addresses of a family cut where the ports that are allowed change, and nowhere else but at single
    addresses that allow more than the ranges around them: those are elements of their own."""
    spans = [(span, ports_of(a.ports)) for a in allowed for span in a.spans.get(version, ())]
    singles: dict[Span, list[Ports]] = {}
    ranges: dict[Span, list[Ports]] = {}
    for span, ports in spans:
        (singles if span[0] == span[1] else ranges).setdefault(span, []).append(ports)
    wide = list(_swept({span: _union(found) for span, found in ranges.items()}))
    holes: list[tuple[Span, Ports]] = []
    at = 0
    for span, found in sorted(singles.items()):
        while at < len(wide) and wide[at][0][1] < span[0]:
            at += 1
        around = wide[at][1] if at < len(wide) and wide[at][0][0] <= span[0] else {}
        whole = _union([around, *found])
        if whole != around:
            holes.append((span, whole))
    yield from _punched(wide, [span for span, _ in holes])
    yield from holes


def span_text(version: int, span: Span) -> str:
    """In nft's notation of intervals, as its listing has it: an address, a range as prefix or as two ends."""
    kind = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    low, high = span
    if low == high:
        return str(kind(low))
    size = high - low + 1
    if size & (size - 1) == 0 and low % size == 0:
        return f"{kind(low)}/{BITS[version] - size.bit_length() + 1}"
    return f"{kind(low)}-{kind(high)}"


def _swept(spans: Mapping[Span, Ports]) -> Iterable[tuple[Span, Ports]]:
    """Ranges that may overlap → ranges that don't, neighbours with equal ports as one."""
    edges = sorted({edge for low, high in spans for edge in (low, high + 1)})
    last: tuple[Span, Ports] | None = None
    for low, after in pairwise(edges):
        ports = _union([p for (first, end), p in spans.items() if first <= low and low <= end])
        if not ports:
            continue
        if last is not None and last[0][1] + 1 == low and last[1] == ports:
            last = (last[0][0], after - 1), ports
            continue
        if last is not None:
            yield last
        last = (low, after - 1), ports
    if last is not None:
        yield last


def _punched(wide: Iterable[tuple[Span, Ports]], holes: Sequence[Span]) -> Iterable[tuple[Span, Ports]]:
    """Ranges without the single addresses in them that have elements of their own; both in order."""
    at = 0
    for (low, high), ports in wide:
        while at < len(holes) and holes[at][0] < low:
            at += 1
        while at < len(holes) and holes[at][0] <= high:
            if low < holes[at][0]:
                yield (low, holes[at][0] - 1), ports
            low = holes[at][0] + 1
            at += 1
        if low <= high:
            yield (low, high), ports


def ports_of(ports: Iterable[PolicyPort]) -> Ports:
    found: dict[str, list[Span]] = {}
    for port in ports:
        span = (port.port, port.to or port.port) if port.port else ALL_PORTS
        found.setdefault(port.protocol, []).append(span)
    return {protocol: _merged(spans) for protocol, spans in found.items()} or EVERYTHING


def _union(several: Sequence[Ports]) -> Ports:
    """Everything, if one of them is."""
    if len(several) == 1:
        return several[0]
    if any("" in ports for ports in several):
        return EVERYTHING
    protocols = sorted({protocol for ports in several for protocol in ports})
    return {p: _merged([span for ports in several for span in ports.get(p, ())]) for p in protocols}


def _merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Ranges of ports in order, those that touch as one."""
    done: list[Span] = []
    for low, high in sorted(spans):
        if done and low <= done[-1][1] + 1:
            done[-1] = (done[-1][0], max(done[-1][1], high))
        else:
            done.append((low, high))
    return tuple(done)


def port_text(span: Span) -> str:
    return str(span[0]) if span[0] == span[1] else f"{span[0]}-{span[1]}"


def without(cidr: str, but: Iterable[str]) -> Iterable[str]:
    """A range without some addresses, in nft's notation of intervals, as its listing says it too."""
    whole = ipaddress.ip_network(cidr)
    kind = type(whole[0])
    holes = sorted({int(a) for a in map(ipaddress.ip_address, but) if a in whole})
    edges = (int(whole[0]) - 1, *holes, int(whole[-1]) + 1)
    for below, above in pairwise(edges):
        if above - below > 1:
            yield _span(kind(below + 1), kind(above - 1))


def is_single(text: str) -> bool:
    """Whether a range is one address."""
    _, (low, high) = span_of(text)
    return low == high


def punched(text: str, holes: Mapping[int, Sequence[int]]) -> Iterator[str]:
    """As `without`, where many ranges are cut by many addresses: those are given by family, in order."""
    version, (low, high) = span_of(text)
    known = holes.get(version, ())
    inside = known[bisect_left(known, low) : bisect_right(known, high)]
    for below, above in pairwise((low - 1, *inside, high + 1)):
        if above - below > 1:
            yield span_text(version, (below + 1, above - 1))


def _span(first: Any, last: Any) -> str:
    if first == last:
        return str(first)
    networks = list(ipaddress.summarize_address_range(first, last))
    return str(networks[0]) if len(networks) == 1 else f"{first}-{last}"
