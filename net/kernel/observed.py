"""What netlink dumps say, as a NetState of our objects only. Pure.

A link is ours when its name has our prefix and its alias is ours; addresses, neighbours and FDB entries are
ours when they are on such a link; routes when they carry our protocol number.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from net.naming import ALIAS, PREFIXES
from net.state import NO_MAC, PROTOCOL, Address, Fdb, Link, Neighbour, NetState, Route, Vxlan

IFF_UP, NUD_PERMANENT, RTN_UNICAST = 0x1, 0x80, 1
AF_INET, AF_INET6 = 2, 10


@dataclass(frozen=True, slots=True)
class Dump:
    """Messages as pyroute2 decodes them."""

    links: Sequence[Any]
    addresses: Sequence[Any]
    neighbours: Sequence[Any]
    fdb: Sequence[Any]
    routes: Sequence[Any]


def state_of(dump: Dump) -> NetState:
    names = {message["index"]: str(message.get_attr("IFLA_IFNAME")) for message in dump.links}
    links = {link.name: link for link in (_link(m, names) for m in dump.links) if link is not None}
    ours = {index: name for index, name in names.items() if name in links}
    stands = {index: name for index, name in ours.items() if links[name].kind != "veth"}
    return NetState(
        links=links,
        addresses=frozenset(_addresses(dump.addresses, stands)),
        neighbours=frozenset(_neighbours(dump.neighbours, stands)),
        fdb=frozenset(_fdb(dump.fdb, stands)),
        routes=frozenset(_routes(dump.routes, names)),
    )


def _link(message: Any, names: Mapping[int, str]) -> Link | None:
    name, alias = str(message.get_attr("IFLA_IFNAME")), str(message.get_attr("IFLA_IFALIAS") or "")
    info = message.get_attr("IFLA_LINKINFO")
    kind = info.get_attr("IFLA_INFO_KIND") if info is not None else None
    if (
        not name.startswith(PREFIXES)
        or not alias.startswith(ALIAS)
        or kind not in ("bridge", "vxlan", "veth")
    ):
        return None
    data = info.get_attr("IFLA_INFO_DATA")
    vxlan = None
    snooping = False
    if kind == "vxlan":
        vxlan = Vxlan(
            vni=data.get_attr("IFLA_VXLAN_ID"),
            local=_canonical(data.get_attr("IFLA_VXLAN_LOCAL") or data.get_attr("IFLA_VXLAN_LOCAL6") or "::"),
            port=data.get_attr("IFLA_VXLAN_PORT"),
            learning=bool(data.get_attr("IFLA_VXLAN_LEARNING")),
        )
    elif kind == "bridge":
        snooping = bool(data.get_attr("IFLA_BR_MCAST_SNOOPING"))
    return Link(
        name=name,
        kind=kind,
        alias=alias,
        mtu=message.get_attr("IFLA_MTU"),
        mac=message.get_attr("IFLA_ADDRESS"),
        master=names.get(message.get_attr("IFLA_MASTER") or 0, ""),
        up=bool(message["flags"] & IFF_UP),
        vxlan=vxlan,
        multicast_snooping=snooping,
    )


def _addresses(messages: Iterable[Any], ours: Mapping[int, str]) -> Iterable[Address]:
    for message in messages:
        text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        if message["index"] in ours and text and not ipaddress.ip_address(text).is_link_local:
            yield Address(link=ours[message["index"]], cidr=f"{_canonical(text)}/{message['prefixlen']}")


def _neighbours(messages: Iterable[Any], ours: Mapping[int, str]) -> Iterable[Neighbour]:
    for message in messages:
        if message["family"] not in (AF_INET, AF_INET6) or not message["state"] & NUD_PERMANENT:
            continue
        address, mac = message.get_attr("NDA_DST"), message.get_attr("NDA_LLADDR")
        if message["ifindex"] in ours and address and mac:
            yield Neighbour(link=ours[message["ifindex"]], address=_canonical(address), mac=mac)


def _fdb(messages: Iterable[Any], ours: Mapping[int, str]) -> Iterable[Fdb]:
    """Static entries of the tunnel itself; learned ones and those of the bridge have no remote or no
    permanence."""
    for message in messages:
        remote = message.get_attr("NDA_DST")
        if message["ifindex"] in ours and remote and message["state"] & NUD_PERMANENT:
            mac = message.get_attr("NDA_LLADDR") or NO_MAC
            yield Fdb(link=ours[message["ifindex"]], mac=mac, remote=_canonical(remote))


def _routes(messages: Iterable[Any], names: Mapping[int, str]) -> Iterable[Route]:
    for message in messages:
        if message["proto"] != PROTOCOL:
            continue
        target = message.get_attr("RTA_DST") or ("::" if message["family"] == AF_INET6 else "0.0.0.0")  # noqa: S104
        via = message.get_attr("RTA_GATEWAY") or (message.get_attr("RTA_VIA") or {}).get("addr", "")
        source = message.get_attr("RTA_PREFSRC")
        plain = message["type"] == RTN_UNICAST
        yield Route(
            destination=f"{_canonical(target)}/{message['dst_len']}",
            link=names.get(message.get_attr("RTA_OIF") or 0, "") if plain else "",
            via=_canonical(via) if via else "",
            source=_canonical(source) if source else "",
        )


def _canonical(text: str) -> str:
    return str(ipaddress.ip_address(text))
