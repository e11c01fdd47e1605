"""A link as the kernel lists it, and why it can't be made a port of a bridge. Pure.

Invariant: each refusal says which link, why, and what to do.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

from model.spec import Struct
from net.naming import PREFIXES, TAGGED
from net.nic.messages import attribute, attributes
from net.nic.state import Wish

LINK_HEADER = 16
ARPHRD_ETHER, IFF_UP, IFF_LOOPBACK = 1, 0x1, 0x8
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_LINKINFO, IFLA_IFALIAS = (
    1,
    3,
    4,
    5,
    10,
    18,
    20,
)
IFLA_INFO_KIND = 1
FRA_IIFNAME, FRA_OIFNAME, RULE_HEADER = 3, 17, 12
CARRIERS = ("", "veth", "bond", "team", "vlan", "dummy", "hsr")
"""Kinds of links that lead to a network of the site; empty: a device."""
UPPERS = ("macvlan", "macvtap", "ipvlan", "ipvtap")
"""Kinds that take all that their parent receives."""


class Seen(Struct):
    index: int
    name: str
    kind: str
    mac: str
    mtu: int
    ethernet: bool
    up: bool
    master: int = 0
    below: int = 0
    """The link that it stands on."""

    @property
    def words(self) -> str:
        """What makes it another link than before."""
        return f"{self.index} {self.mac} {self.mtu}"


def links_of(dumped: Iterable[bytes]) -> Mapping[str, Seen]:
    """Of a dump of links, by name."""
    return {link.name: link for link in map(_seen, dumped)}


def refusal(wish: Wish, links: Mapping[str, Seen], *, wireless: bool, rules: Iterable[bytes]) -> str:
    """Why this link can't be the bridge's port; empty if it can."""
    name, link, bridge = wish.parent, links.get(wish.parent), links.get(wish.bridge)
    if link is None:
        return f"this host has no link {name}"
    if bridge is None:
        return f"its bridge {wish.bridge} is not there yet"
    if name.startswith(PREFIXES) and not name.startswith(TAGGED):
        return f"{name} is a link of flota's own"
    if link.kind == "bridge":
        return f"{name} is a bridge itself; name the link that is its port, once it is free"
    if not link.ethernet or link.kind not in CARRIERS:
        return f"{name} is no Ethernet link that a bridge could carry ({link.kind or 'its kind'})"
    if wireless:
        return (
            f"{name} is wireless, and access points take no frames of others' MACs; use macvlan or an overlay"
        )
    if link.master and link.master != bridge.index:
        holder = next((other.name for other in links.values() if other.index == link.master), "another link")
        return f"{name} is a port of {holder} already; take it out first, or name {holder}'s own link"
    for other in links.values():
        if other.below == link.index and other.kind in UPPERS:
            return (
                f"{name} is the parent of {other.kind} {other.name} already, which takes all that it receives"
            )
    if not link.up:
        return f"{name} is down; ip link set {name} up"
    if link.mtu != wish.mtu:
        return f"{name} has an MTU of {link.mtu}, the network one of {wish.mtu}: --opt mtu={link.mtu}"
    if any(names(rule, name) for rule in rules):
        return (
            f"a rule of `ip rule` names {name}, and would lead nowhere once its packets come by {wish.bridge}"
        )
    return ""


def names(rule: bytes, link: str) -> bool:
    """Whether a dumped rule is for what comes or goes by that link."""
    words = [value for kind, value in attributes(rule, RULE_HEADER) if kind in (FRA_IIFNAME, FRA_OIFNAME)]
    return link.encode() in (word.rstrip(b"\0") for word in words)


def ports_of(dumped: Iterable[bytes], bridges: Iterable[str]) -> Mapping[str, str]:
    """Links that are ports of one of these bridges: name → bridge."""
    links = links_of(dumped)
    wanted = {links[name].index: name for name in bridges if name in links}
    return {link.name: wanted[link.master] for link in links.values() if link.master in wanted}


def changed(index: int, *attributes_: tuple[int, bytes]) -> bytes:
    """The payload that sets these of a link."""
    head = struct.pack("=BxHiII", 0, 0, index, 0, 0)
    return head + b"".join(attribute(kind, value) for kind, value in attributes_)


def _seen(data: bytes) -> Seen:
    kind_, index, flags = struct.unpack_from("=HiI", data, 2)
    found = dict(attributes(data, LINK_HEADER))
    info = dict(attributes(found.get(IFLA_LINKINFO, b""), 0))
    return Seen(
        index=index,
        name=_text(found.get(IFLA_IFNAME, b"")),
        kind=_text(info.get(IFLA_INFO_KIND, b"")),
        mac=found.get(IFLA_ADDRESS, b"").hex(":"),
        mtu=_number(found, IFLA_MTU),
        ethernet=kind_ == ARPHRD_ETHER and not flags & IFF_LOOPBACK,
        up=bool(flags & IFF_UP),
        master=_number(found, IFLA_MASTER),
        below=_number(found, IFLA_LINK),
    )


def _number(found: Mapping[int, bytes], kind: int) -> int:
    raw = found.get(kind)
    return int(struct.unpack("=I", raw)[0]) if raw else 0


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")
