"""Route messages that put what stood on one link onto another (rtnetlink(7)). Pure.

Payloads are taken as the kernel dumped them and given back with another link's index, so that what nobody
here knows of (metrics, lifetimes, preferences) moves along. Invariants: what the kernel makes by itself
with an address may be there already and is no error; addresses stand in the order that they had.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Sequence

AF_INET, AF_INET6 = 2, 10
IFA_LOCAL, IFA_LABEL, IFA_CACHEINFO, IFA_FLAGS = 2, 3, 6, 8
IFA_F_NODAD, IFA_F_HOMEADDRESS, IFA_F_MANAGETEMPADDR = 0x02, 0x10, 0x100
IFA_F_NOPREFIXROUTE, IFA_F_MCAUTOJOIN = 0x200, 0x400
KEPT_FLAGS = IFA_F_NODAD | IFA_F_HOMEADDRESS | IFA_F_MANAGETEMPADDR | IFA_F_NOPREFIXROUTE | IFA_F_MCAUTOJOIN
"""Those that are told; the kernel sets the others by itself."""
RTA_OIF, RTA_GATEWAY, RTA_PREFSRC, RTA_MULTIPATH, RTA_CACHEINFO, RTA_TABLE, RTA_VIA = 4, 5, 7, 9, 12, 15, 18
RTA_EXPIRES, RTA_NH_ID = 23, 30
RTNH_F_ONLINK, RTM_F_CLONED = 4, 0x200
TABLE_LOCAL, HZ = 255, 100
"""User space sees clock ticks of a hundredth of a second (time(7))."""
NUD_PERMANENT, NUD_NOARP, NTF_PROXY = 0x80, 0x40, 0x08
NDA_DST, NDA_LLADDR = 1, 2
FOREVER = 0xFFFFFFFF
ADDRESS_HEADER, ROUTE_HEADER, NEIGHBOUR_HEADER, NEXTHOP_HEADER = 8, 12, 12, 8
NLA_TYPE = 0x3FFF


def addresses_on(dumped: Iterable[bytes], index: int) -> tuple[bytes, ...]:
    """Of a dump of addresses, those of that link."""
    return tuple(data for data in dumped if struct.unpack_from("=I", data, 4)[0] == index)


def routes_on(dumped: Iterable[bytes], index: int) -> tuple[bytes, ...]:
    """Of a dump of routes, those by that link that are not the kernel's own (its local table, its cache);
    those without a gateway first, for gateways must be reachable when they are named."""
    found = [data for data in dumped if index in _links_of(data) and _is_a_users(data)]
    return tuple(sorted(found, key=has_gateway))


def routes_from(dumped: Iterable[bytes], index: int, addresses: Iterable[bytes]) -> tuple[bytes, ...]:
    """Of a dump of routes, those of IPv4 by other links that name one of these addresses as their source. (Of
    IPv6 the kernel takes addresses of a route's own link only.)"""
    own = {known[IFA_LOCAL] for a in addresses if IFA_LOCAL in (known := dict(attributes(a, ADDRESS_HEADER)))}
    found = []
    for data in dumped:
        source = dict(attributes(data, ROUTE_HEADER)).get(RTA_PREFSRC)
        if data[0] == AF_INET and source in own and index not in _links_of(data) and _is_a_users(data):
            found.append(_by_object(data))
    return tuple(sorted(found, key=has_gateway))


def _by_object(data: bytes) -> bytes:
    """The kernel tells what an object of `ip nexthop` is, and takes its number alone."""
    parts = attributes(data, ROUTE_HEADER)
    if RTA_NH_ID not in dict(parts):
        return data
    kept = (part for part in parts if part[0] not in (RTA_OIF, RTA_GATEWAY, RTA_MULTIPATH, RTA_VIA))
    return data[:ROUTE_HEADER] + b"".join(attribute(kind, value) for kind, value in kept)


def leads_by(data: bytes, indexes: Iterable[int]) -> bool:
    return not _links_of(data).isdisjoint(indexes)


def neighbours_on(dumped: Iterable[bytes], index: int) -> tuple[bytes, ...]:
    """Of a dump of neighbours, the permanent ones of that link."""
    found = []
    for data in dumped:
        where, state, flags = struct.unpack_from("=iHB", data, 4)
        if where == index and state & NUD_PERMANENT and not state & NUD_NOARP and not flags & NTF_PROXY:
            found.append(data)
    return tuple(found)


def in_order(addresses: Sequence[bytes]) -> list[bytes]:
    """As they are to be added: of IPv6 the kernel lists the last one first."""
    return [a for a in addresses if a[0] != AF_INET6] + [a for a in reversed(addresses) if a[0] == AF_INET6]


def address_for(data: bytes, index: int, label: str, *, elapsed: float, unprobed: bool) -> bytes:
    """The payload that puts it on a link. Its lifetimes are shorter by `elapsed` seconds. `unprobed`: good at
    once, for this host has it already (no duplicate address detection)."""
    family, prefix, flags, scope = data[:4]
    found = attributes(data, ADDRESS_HEADER)
    known = dict(found)
    kept = (struct.unpack("=I", known[IFA_FLAGS])[0] if IFA_FLAGS in known else flags) & KEPT_FLAGS
    if unprobed and family == AF_INET6:
        kept |= IFA_F_NODAD
    body = struct.pack("=BBBBI", family, prefix, kept & 0xFF, scope, index)
    for kind, value in found:
        match kind:
            case _ if kind == IFA_LABEL:
                body += attribute(kind, label.encode()[:15] + b"\0")
            case _ if kind == IFA_CACHEINFO:
                preferred, valid = struct.unpack_from("=II", value)
                left = (_less(preferred, elapsed), max(1, _less(valid, elapsed)))
                body += attribute(kind, struct.pack("=IIII", *left, 0, 0))
            case _ if kind == IFA_FLAGS:
                continue
            case _:
                body += attribute(kind, value)
    return body + attribute(IFA_FLAGS, struct.pack("=I", kept))


def label_of(data: bytes) -> str:
    """Of an IPv4 address (ip-address(8)); empty where there is none."""
    return dict(attributes(data, ADDRESS_HEADER)).get(IFA_LABEL, b"").rstrip(b"\0").decode(errors="replace")


def labelled_as(addresses: Iterable[bytes], known: Iterable[bytes]) -> tuple[bytes, ...]:
    """These addresses, with the labels that they have among the known ones."""
    labels = {cidr_of(data): label_of(data) for data in known}
    found = []
    for data in addresses:
        label = labels.get(cidr_of(data), "").encode()
        rest = attributes(data, ADDRESS_HEADER)
        parts = ((k, label + b"\0" if k == IFA_LABEL and label else v) for k, v in rest)
        found.append(data[:ADDRESS_HEADER] + b"".join(attribute(kind, value) for kind, value in parts))
    return tuple(found)


def relabelled(label: str, before: str, after: str) -> str:
    """A label names its link, perhaps with a suffix (`eth0:1`)."""
    return after + label[len(before) :] if label == before or label.startswith(f"{before}:") else label


def cidr_of(data: bytes) -> str:
    """The address with its prefix length."""
    found = dict(attributes(data, ADDRESS_HEADER))
    return f"{ipaddress.ip_address(found.get(2) or found[1])}/{data[1]}"


def address_gone(data: bytes, index: int) -> bytes:
    body = data[:4] + struct.pack("=I", index)
    wanted = [(k, v) for k, v in attributes(data, ADDRESS_HEADER) if k in (1, 2)]
    return body + b"".join(attribute(kind, value) for kind, value in wanted)


def route_for(data: bytes, before: int, after: int, *, elapsed: float = 0.0) -> bytes:
    """The payload of the same route by another link."""
    flags = struct.unpack_from("=I", data, 8)[0] & RTNH_F_ONLINK
    body = data[:8] + struct.pack("=I", flags)
    for kind, value in attributes(data, ROUTE_HEADER):
        match kind:
            case _ if kind == RTA_OIF:
                body += attribute(kind, struct.pack("=I", _other(value, before, after)))
            case _ if kind == RTA_MULTIPATH:
                body += attribute(kind, _nexthops(value, before, after))
            case _ if kind == RTA_CACHEINFO:
                expires = struct.unpack_from("=i", value, 8)[0]
                if expires > 0:
                    body += attribute(RTA_EXPIRES, struct.pack("=I", max(1, int(expires / HZ - elapsed))))
            case _:
                body += attribute(kind, value)
    return body


def neighbour_for(data: bytes, index: int) -> bytes:
    state, flags = struct.unpack_from("=HB", data, 8)
    body = struct.pack("=BxxxiHBB", data[0], index, state, flags, data[11])
    wanted = [(k, v) for k, v in attributes(data, NEIGHBOUR_HEADER) if k in (NDA_DST, NDA_LLADDR)]
    return body + b"".join(attribute(kind, value) for kind, value in wanted)


def gateways(routes: Iterable[bytes]) -> tuple[tuple[int, bytes], ...]:
    """(family, packed address) of the gateways of default routes, each once."""
    found: dict[tuple[int, bytes], None] = {}
    for data in routes:
        known = dict(attributes(data, ROUTE_HEADER))
        if data[1] == 0 and RTA_GATEWAY in known:
            found.setdefault((data[0], known[RTA_GATEWAY]))
    return tuple(found)


def by_nexthop_objects(routes: Iterable[bytes]) -> bool:
    """Whether any leads by an object of `ip nexthop`, which is tied to its link."""
    return any(RTA_NH_ID in dict(attributes(data, ROUTE_HEADER)) for data in routes)


def attributes(data: bytes, at: int) -> list[tuple[int, bytes]]:
    found = []
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            break
        found.append((kind & NLA_TYPE, data[at + 4 : at + length]))
        at += length + (-length % 4)
    return found


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _is_a_users(data: bytes) -> bool:
    table = dict(attributes(data, ROUTE_HEADER)).get(RTA_TABLE)
    number = struct.unpack("=I", table)[0] if table else data[4]
    return number != TABLE_LOCAL and not struct.unpack_from("=I", data, 8)[0] & RTM_F_CLONED


def _links_of(data: bytes) -> set[int]:
    found = set()
    for kind, value in attributes(data, ROUTE_HEADER):
        if kind == RTA_OIF:
            found.add(struct.unpack("=I", value)[0])
        elif kind == RTA_MULTIPATH:
            found |= {struct.unpack_from("=i", value, at + 4)[0] for at, _ in _each_nexthop(value)}
    return found


def has_gateway(data: bytes) -> bool:
    kinds = {kind for kind, _ in attributes(data, ROUTE_HEADER)}
    return bool(kinds & {RTA_GATEWAY, RTA_VIA, RTA_MULTIPATH, RTA_NH_ID})


def _each_nexthop(value: bytes) -> Iterable[tuple[int, int]]:
    """(offset, length) of each struct rtnexthop."""
    at = 0
    while at + NEXTHOP_HEADER <= len(value):
        length = struct.unpack_from("=H", value, at)[0]
        if length < NEXTHOP_HEADER:
            return
        yield at, length
        at += length + (-length % 4)


def _nexthops(value: bytes, before: int, after: int) -> bytes:
    made = b""
    for at, length in _each_nexthop(value):
        flags, hops, index = struct.unpack_from("=BBi", value, at + 2)
        head = struct.pack("=HBBi", length, flags & RTNH_F_ONLINK, hops, after if index == before else index)
        made += head + value[at + NEXTHOP_HEADER : at + length] + bytes(-length % 4)
    return made


def _other(value: bytes, before: int, after: int) -> int:
    index = int(struct.unpack("=I", value)[0])
    return after if index == before else index


def _less(seconds: int, elapsed: float) -> int:
    return seconds if seconds == FOREVER else max(0, int(seconds - elapsed))
