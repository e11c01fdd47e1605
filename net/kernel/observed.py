"""rtnetlink dumps (rtnetlink(7)) as a NetState of our objects only. Pure.

A link is ours when its name has our prefix and its alias is ours; addresses, neighbours and FDB entries are
ours when they are on such a link; routes and rules when they carry our protocol number. Decoded by hand: one
message costs microseconds, so that a host with a thousand containers can be looked at after every change.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Mapping

from net.naming import ALIAS, PREFIXES, SITE_BRIDGE, VETH, WIREGUARD
from net.state import (
    NO_MAC,
    PROTOCOL,
    UPPER,
    Address,
    Detour,
    Fdb,
    Limit,
    Link,
    LinkKind,
    Neighbour,
    NetState,
    PolicyRule,
    Route,
    Vxlan,
)

AF_UNSPEC, AF_INET, AF_BRIDGE, AF_INET6 = 0, 2, 7, 10
IFF_UP, NUD_PERMANENT, RTN_UNICAST, TABLE_MAIN = 0x1, 0x80, 1, 254
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_LINKINFO, IFLA_IFALIAS = 1, 3, 4, 10, 18, 20
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_BR_MCAST_SNOOPING = 1, 2, 23
IFLA_VXLAN_PORT_RANGE = 10
IFLA_VXLAN_ID, IFLA_VXLAN_LOCAL, IFLA_VXLAN_LEARNING, IFLA_VXLAN_PORT, IFLA_VXLAN_LOCAL6 = 1, 4, 7, 15, 17
IFA_ADDRESS, IFA_LOCAL, NDA_DST, NDA_LLADDR = 1, 2, 1, 2
TCA_KIND, TCA_OPTIONS, TCA_TBF_PARMS, TCA_U32_ACT, TCA_ACT_OPTIONS, TCA_MIRRED_PARMS = 1, 2, 1, 7, 2, 2
TC_ROOT, TC_INGRESS_PARENT = 0xFFFFFFFF, 0xFFFFFFF1
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_TABLE, RTA_VIA = 1, 4, 5, 6, 7, 15, 18
IPV6_METRIC = 1024
"""Of a route that was given none (IP6_RT_PRIO_USER)."""
FRA_PRIORITY, FRA_FWMARK, FRA_TABLE, FRA_FWMASK, FRA_PROTOCOL = 6, 10, 15, 16, 21
IFLA_LINK = 5
MACVLAN_MODES: Mapping[int, str] = {1: "private", 2: "vepa", 4: "bridge", 8: "passthru"}
IPVLAN_MODES: Mapping[int, str] = {0: "l2", 1: "l3", 2: "l3s"}
IPVLAN_FLAGS: Mapping[int, str] = {0: "bridge", 1: "private", 2: "vepa"}
"""linux/if_link.h."""
NLA_TYPE = 0x3FFF
_SKIP_STATS = struct.pack("=HHI", 8, 29, 1 << 3)
"""IFLA_EXT_MASK with RTEXT_FILTER_SKIP_STATS: a third of the bytes."""

DUMPS: Mapping[str, tuple[int, bytes]] = {
    "links": (18, bytes(16) + _SKIP_STATS),
    "addresses": (22, bytes(8)),
    "neighbours": (30, bytes(12)),
    "fdb": (30, struct.pack("=B11x", AF_BRIDGE)),
    "routes": (26, bytes(12)),
    "qdiscs": (38, bytes(20)),
    "rules": (34, bytes(12)),
}
"""What `state_of` needs: message type and body of each dump request."""


def state_of(
    *,
    links: Iterable[bytes],
    addresses: Iterable[bytes],
    neighbours: Iterable[bytes],
    fdb: Iterable[bytes],
    routes: Iterable[bytes],
    rules: Iterable[bytes],
    qdiscs: Iterable[bytes],
    filters: Iterable[bytes] = (),
) -> NetState:
    """From the payloads (without netlink header) of the dumps of `DUMPS`; `filters` of what stands at the
    entrances of links."""
    raw = {struct.unpack_from("=i", data, 4)[0]: data for data in links}
    parsed = {index: attributes(data, 16) for index, data in raw.items()}
    names = {index: text(found.get(IFLA_IFNAME, b"")) for index, found in parsed.items()}
    seen = {index: _link(raw[index], found, names) for index, found in parsed.items()}
    ours = {index: link for index, link in seen.items() if link is not None}
    others = (VETH, SITE_BRIDGE)
    stands = {index: link.name for index, link in ours.items() if not link.name.startswith(others)}
    return NetState(
        links={link.name: link for link in ours.values()},
        addresses=frozenset(_addresses(addresses, stands)),
        neighbours=frozenset(_neighbours(neighbours, stands)),
        fdb=frozenset(_fdb(fdb, stands)),
        routes=frozenset(_routes(routes, names)),
        limits=frozenset(_limits(qdiscs, ours)),
        detours=frozenset(_detours(filters, ours, names)),
        rules=frozenset(_rules(rules)),
    )


def _link(data: bytes, found: Mapping[int, bytes], names: Mapping[int, str]) -> Link | None:
    name, alias = text(found.get(IFLA_IFNAME, b"")), text(found.get(IFLA_IFALIAS, b""))
    if not name.startswith(PREFIXES) or not alias.startswith(ALIAS):
        return None
    info = attributes(found.get(IFLA_LINKINFO, b""), 0)
    kind = _kind(name, text(info.get(IFLA_INFO_KIND, b"")))
    if kind is None:
        return None
    details = attributes(info.get(IFLA_INFO_DATA, b""), 0)
    _, below, mode, vlan = upper_of(found, names)
    return Link(
        name=name,
        kind=kind,
        alias=alias,
        mtu=number(found, IFLA_MTU),
        mac=_mac(found.get(IFLA_ADDRESS, b"")),
        master=names.get(number(found, IFLA_MASTER), ""),
        up=bool(struct.unpack_from("=I", data, 8)[0] & IFF_UP),
        vxlan=_vxlan(details) if kind == "vxlan" else None,
        below=below,
        mode=mode,
        vlan=vlan,
        multicast_snooping=kind == "bridge" and any(details.get(IFLA_BR_MCAST_SNOOPING, b"")),
    )


def names_of(links: Iterable[bytes]) -> dict[int, str]:
    """Of a dump of links, by index."""
    pairs = ((struct.unpack_from("=i", data, 4)[0], attributes(data, 16)) for data in links)
    return {index: text(found.get(IFLA_IFNAME, b"")) for index, found in pairs}


def upper_of(found: Mapping[int, bytes], names: Mapping[int, str]) -> tuple[LinkKind | None, str, str, int]:
    """Of a link that stands on another: its kind, that one's name, its mode and VLAN. The number of the one
    below is good in the namespace that the link was made from."""
    info = attributes(found.get(IFLA_LINKINFO, b""), 0)
    kind = _kind("", text(info.get(IFLA_INFO_KIND, b"")))
    if kind not in UPPER:
        return None, "", "", 0
    details = attributes(info.get(IFLA_INFO_DATA, b""), 0)
    below = names.get(number(found, IFLA_LINK), "")
    raw = details.get(1, b"")
    if kind == "macvlan":
        return kind, below, MACVLAN_MODES.get(_small(raw), ""), 0
    if kind == "vlan":
        return kind, below, "", _small(raw)
    mode = IPVLAN_MODES.get(_small(raw), "")
    flag = IPVLAN_FLAGS.get(_small(details.get(2, b"")), "")
    return kind, below, f"{mode} {flag}", 0


def _small(raw: bytes) -> int:
    """Of two or four bytes."""
    return int(struct.unpack("=H" if len(raw) == 2 else "=I", raw)[0]) if len(raw) in (2, 4) else 0


def _kind(name: str, text: str) -> LinkKind | None:
    match text:
        case "bridge" | "vxlan" | "veth" | "ifb" | "macvlan" | "ipvlan" | "vlan":
            return text
        case "wireguard" | "tun" if name.startswith(WIREGUARD):
            return "wireguard"
        case _:
            return None


def _vxlan(details: Mapping[int, bytes]) -> Vxlan:
    local = details.get(IFLA_VXLAN_LOCAL) or details.get(IFLA_VXLAN_LOCAL6) or bytes(16)
    return Vxlan(
        vni=number(details, IFLA_VXLAN_ID),
        local=_ip(local),
        port=int.from_bytes(details.get(IFLA_VXLAN_PORT, b""), "big"),
        learning=any(details.get(IFLA_VXLAN_LEARNING, b"")),
        source_ports=struct.unpack_from("!HH", details.get(IFLA_VXLAN_PORT_RANGE, b"").ljust(4, b"\0")),
    )


def _addresses(messages: Iterable[bytes], ours: Mapping[int, str]) -> Iterable[Address]:
    for data in messages:
        prefix, index = data[1], struct.unpack_from("=i", data, 4)[0]
        if index not in ours:
            continue
        found = attributes(data, 8)
        address = ipaddress.ip_address(found.get(IFA_LOCAL) or found[IFA_ADDRESS])
        yield Address(link=ours[index], cidr=f"{address}/{prefix}")


def local_addresses(messages: Iterable[bytes]) -> Iterable[bytes]:
    """Packed, of all links, ours or not."""
    for data in messages:
        found = attributes(data, 8)
        yield found.get(IFA_LOCAL) or found[IFA_ADDRESS]


def _neighbours(messages: Iterable[bytes], ours: Mapping[int, str]) -> Iterable[Neighbour]:
    for index, state, data in _entries(messages, ours):
        found = attributes(data, 12)
        if data[0] in (AF_INET, AF_INET6) and state & NUD_PERMANENT and found.get(NDA_LLADDR):
            yield Neighbour(link=ours[index], address=_ip(found[NDA_DST]), mac=_mac(found[NDA_LLADDR]))


def _fdb(messages: Iterable[bytes], ours: Mapping[int, str]) -> Iterable[Fdb]:
    """Static entries of the tunnels; learned ones and those of bridges lack a remote or permanence."""
    for index, state, data in _entries(messages, ours):
        found = attributes(data, 12)
        if state & NUD_PERMANENT and NDA_DST in found:
            mac = _mac(found.get(NDA_LLADDR, b"")) or NO_MAC
            yield Fdb(link=ours[index], mac=mac, remote=_ip(found[NDA_DST]))


def learned(messages: Iterable[bytes], link: int, remote: str) -> list[str]:
    """MACs that the tunnel with index `link` has found behind `remote` by itself."""
    parsed = ((state, attributes(data, 12)) for _, state, data in _entries(messages, {link: ""}))
    return [
        _mac(found[NDA_LLADDR])
        for state, found in parsed
        if not state & NUD_PERMANENT and NDA_DST in found and _ip(found[NDA_DST]) == remote
    ]


def _entries(messages: Iterable[bytes], ours: Mapping[int, str]) -> Iterable[tuple[int, int, bytes]]:
    """(link, state, message) of the neighbour messages about our links."""
    for data in messages:
        index, state = struct.unpack_from("=iH", data, 4)
        if index in ours:
            yield index, state, data


def _routes(messages: Iterable[bytes], names: Mapping[int, str]) -> Iterable[Route]:
    for data in messages:
        family, prefix, _, _, _, protocol, _, kind = struct.unpack_from("=8B", data)
        if protocol != PROTOCOL:
            continue
        found = attributes(data, 12)
        table, metric = number(found, RTA_TABLE), number(found, RTA_PRIORITY)
        via = found.get(RTA_GATEWAY) or found.get(RTA_VIA, b"")[2:]
        source = found.get(RTA_PREFSRC, b"")
        target = found.get(RTA_DST) or bytes(16 if family == AF_INET6 else 4)
        yield Route(
            destination=f"{_ip(target)}/{prefix}",
            link=names.get(number(found, RTA_OIF), "") if kind == RTN_UNICAST else "",
            via=_ip(via) if via else "",
            source=_ip(source) if source else "",
            table=0 if table == TABLE_MAIN else table,
            metric=0 if family == AF_INET6 and metric == IPV6_METRIC else metric,
        )


def _rules(messages: Iterable[bytes]) -> Iterable[PolicyRule]:
    for data in messages:
        found = attributes(data, 12)
        if data[0] not in (AF_INET, AF_INET6) or found.get(FRA_PROTOCOL) != bytes([PROTOCOL]):
            continue
        yield PolicyRule(
            version=6 if data[0] == AF_INET6 else 4,
            mark=number(found, FRA_FWMARK),
            mask=number(found, FRA_FWMASK),
            table=number(found, FRA_TABLE),
            priority=number(found, FRA_PRIORITY),
        )


def entrances(qdiscs: Iterable[bytes]) -> list[int]:
    """Indexes of the links whose entrance a dumped qdisc is (tc-ingress); filters may stand there."""
    found = (struct.unpack_from("=iII", data, 4) for data in qdiscs)
    return [index for index, _, parent in found if parent == TC_INGRESS_PARENT]


def _limits(qdiscs: Iterable[bytes], ours: Mapping[int, Link]) -> Iterable[Limit]:
    """Token buckets at the root of our links."""
    for data in qdiscs:
        index, _, parent = struct.unpack_from("=iII", data, 4)
        found = attributes(data, 20)
        if index in ours and parent == TC_ROOT and found.get(TCA_KIND) == b"tbf\0":
            parms = attributes(found.get(TCA_OPTIONS, b""), 0).get(TCA_TBF_PARMS, bytes(36))
            yield Limit(link=ours[index].name, rate=struct.unpack_from("=I", parms, 8)[0])


def _detours(
    filters: Iterable[bytes], ours: Mapping[int, Link], names: Mapping[int, str]
) -> Iterable[Detour]:
    """Filters at the entrances of our links that lead all away (tc-u32, tc-mirred)."""
    for data in filters:
        index = struct.unpack_from("=i", data, 4)[0]
        options = attributes(attributes(data, 20).get(TCA_OPTIONS, b""), 0)
        action = attributes(attributes(options.get(TCA_U32_ACT, b""), 0).get(1, b""), 0)
        mirred = attributes(action.get(TCA_ACT_OPTIONS, b""), 0).get(TCA_MIRRED_PARMS, b"")
        if index in ours and len(mirred) >= 28:
            yield Detour(link=ours[index].name, to=names.get(struct.unpack_from("=I", mirred, 24)[0], ""))


def attributes(data: bytes, at: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            break
        found[kind & NLA_TYPE] = data[at + 4 : at + length]
        at += length + (-length % 4)
    return found


def number(found: Mapping[int, bytes], kind: int) -> int:
    raw = found.get(kind)
    return int(struct.unpack("=I", raw)[0]) if raw else 0


def text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")


def _mac(raw: bytes) -> str:
    return raw.hex(":") if raw else ""


def _ip(raw: bytes) -> str:
    return str(ipaddress.ip_address(raw))
