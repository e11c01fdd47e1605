"""The packet filter of what stays on a bridge, as a value: nobody speaks for another. Pure.

Invariant: a frame from a container carries that endpoint's own MAC and address, and says nothing that only a
router or a DHCP server says; one of any other protocol goes nowhere, for behind a second header or tag an
address may stand that its reader believes. A gateway's MAC, the same on each host, stays off the tunnels;
where icc is off no frame passes from port to port. What is dropped is counted. The first two chains begin
with a comparison of the link's prefix, which costs other traffic less than a look-up in a set; all but the
first are there only with networks that need them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Container, Iterable, Mapping

from model.netoptions import apart
from net.backend.base import Member
from net.endpoint import mac_of
from net.host import EndpointRequest
from net.jhash import MODULUS, nft_jhash
from net.naming import VETH, VXLAN, gateway_mac, link_local, veth_name, vxlan_name
from net.state import Chain, ElementSet, NftTable, Rule, element_set, rule

RAW, FILTER = -300, 0
"""Priorities of netfilter hooks (nft(8))."""
SEED = 0xF107D
ND_ROUTER_ADVERT, ND_NEIGHBOR_ADVERT, ND_REDIRECT = 134, 136, 137
"""Types of ICMPv6 (RFC 4861)."""


def table(members: tuple[Member, ...], endpoints: tuple[EndpointRequest, ...]) -> NftTable:
    anycast = [
        f"{vxlan_name(m.view.id)} . {gateway_mac(m.view.id)}"
        for m in members
        if m.traits.onlink and len(m.traits.inner) > 1
    ]
    feet = [(veth_name(e.instance, e.network), e) for e in endpoints]
    chains = {
        **_router_chains(),
        "guard": Chain(type="filter", hook="prerouting", priority=RAW, rules=_guard_rules()),
    }
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
                (f"{name} . {mac_of(e)} . {own}" for name, e in feet for own in _own6(e)),
            ),
            "macs": element_set("ifname . ether_addr", (f"{name} . {mac_of(e)}" for name, e in feet)),
            "targets6": ElementSet(
                type="ifname . integer",
                declared="typeof iifname . numgen inc mod 2",
                elements={_target(name, own): "" for name, e in feet for own in _own6(e)},
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
        rule("meta l4proto vmap { udp : jump no_dhcp, ipv6-icmp : jump no_router }", "what only routers say"),
        rule(f"{source} . ip saddr @feet4 accept", "its own address"),
        rule(f"{source} . ip6 saddr @feet6 accept", "its own address"),
        rule(f"{source} . arp saddr ip @feet4 accept", "its own address"),
        rule(f"{source} != @macs counter drop", "another's MAC"),
        rule("ip saddr 0.0.0.0 udp dport 67 accept", "DHCP, before it has an address"),
        rule("arp saddr ip 0.0.0.0 accept", "probe, RFC 5227"),
        rule("ip6 saddr :: meta l4proto ipv6-icmp accept", "before it has an address, RFC 4862"),
        rule("counter drop", "spoofed source, or no protocol of a container's"),
    )


def _router_chains() -> Mapping[str, Chain]:
    """Ahead of what lets a container's own address pass: its advertisements would be believed. The message's
    type is read where it stands: nft's own word for it passes over frames with a VLAN's tag."""
    target = f"jhash @th,64,128 mod {MODULUS:#x} seed {SEED:#x}"
    servers = "udp sport . udp dport { 67 . 68, 547 . 546 }"
    advertised = f"@th,0,8 {ND_NEIGHBOR_ADVERT} iifname . {target} != @targets6"
    return {
        "no_dhcp": Chain(rules=(rule(f"{servers} counter drop", "a container is no DHCP server"),)),
        "no_router": Chain(
            rules=(
                rule(f"@th,0,8 {{ {ND_ROUTER_ADVERT}, {ND_REDIRECT} }} counter drop", "it is no router"),
                rule(f"{advertised} counter drop", "another's address, RFC 4861"),
            )
        ),
    }


def _own6(foot: EndpointRequest) -> tuple[str, ...]:
    """Its IPv6 addresses: the one it was given, and the one that it makes itself of its MAC."""
    if not foot.ipv6:
        return ()
    return str(ipaddress.ip_address(foot.ipv6)), link_local(mac_of(foot))


def _target(name: str, address: str) -> str:
    """An element of the addresses that a container may say are its own."""
    return f"{name} . {nft_jhash(ipaddress.IPv6Address(address).packed, SEED)}"
