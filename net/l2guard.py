"""The packet filter of what stays on a bridge, as a value: nobody speaks for another. Pure.

Invariant: a frame from a container carries that endpoint's own MAC and address; a gateway's MAC, the same on
each host, stays off the tunnels; where icc is off no frame passes from port to port. The first two chains
begin with a comparison of the link's prefix, which costs other traffic less than a look-up in a set; all but
the first are there only with networks that need them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Container, Iterable

from model.netoptions import apart
from net.backend.base import Member
from net.endpoint import mac_of
from net.host import EndpointRequest
from net.naming import VETH, VXLAN, gateway_mac, veth_name, vxlan_name
from net.state import Chain, NftTable, Rule, element_set, rule

RAW, FILTER = -300, 0
"""Priorities of netfilter hooks (nft(8))."""


def table(members: tuple[Member, ...], endpoints: tuple[EndpointRequest, ...]) -> NftTable:
    anycast = [
        f"{vxlan_name(m.view.id)} . {gateway_mac(m.view.id)}"
        for m in members
        if m.traits.onlink and len(m.traits.inner) > 1
    ]
    feet = [(veth_name(e.instance, e.network), e) for e in endpoints]
    chains = {"guard": Chain(type="filter", hook="prerouting", priority=RAW, rules=_guard_rules())}
    if anycast:
        away = f'oifname "{VXLAN}*" oifname . ether saddr @anycast drop'
        chains["leave"] = Chain(
            type="filter",
            hook="postrouting",
            priority=FILTER,
            rules=(rule(away, "each host is its own gateway"),),
        )
    lonely = {m.view.id for m in members if apart(m.view.spec.options)}
    if lonely:
        chains["within"] = Chain(
            type="filter",
            hook="forward",
            priority=FILTER,
            rules=(rule("iifname @lonely drop", "icc is off: its containers are apart"),),
        )
    return NftTable(
        chains=chains,
        sets={
            "lonely": element_set("ifname", _ports(members, feet, lonely)),
            "feet4": element_set(
                "ifname . ether_addr . ipv4_addr",
                (f"{name} . {mac_of(e)} . {e.ipv4}" for name, e in feet if e.ipv4),
            ),
            "feet6": element_set(
                "ifname . ether_addr . ipv6_addr",
                (f"{name} . {mac_of(e)} . {ipaddress.ip_address(e.ipv6)}" for name, e in feet if e.ipv6),
            ),
            "anycast": element_set("ifname . ether_addr", anycast),
        },
    )


def _ports(
    members: Iterable[Member], feet: Iterable[tuple[str, EndpointRequest]], networks: Container[str]
) -> Iterable[str]:
    """Of the bridges of these networks; a tunnel's is one where the network is one segment over all hosts."""
    yield from (name for name, foot in feet if foot.network in networks)
    for member in members:
        if member.view.id in networks and member.traits.onlink and len(member.traits.inner) > 1:
            yield vxlan_name(member.view.id)


def _guard_rules() -> tuple[Rule, ...]:
    source = "iifname . ether saddr"
    return (
        rule(f'iifname != "{VETH}*" accept', "not from a container"),
        rule(f"{source} . ip saddr @feet4 accept", "its own address"),
        rule(f"{source} . ip6 saddr @feet6 accept", "its own address"),
        rule(f"{source} . arp saddr ip @feet4 accept", "its own address"),
        rule("ip saddr 0.0.0.0 accept", "DHCP, before it has an address"),
        rule("arp saddr ip 0.0.0.0 accept", "probe, RFC 5227"),
        rule("ip6 saddr { ::, fe80::/10 } accept", "link-local, RFC 4291"),
        rule("ether type { ip, arp, ip6 } drop", "spoofed source"),
    )
