"""The packet filter as a value: which traffic passes between containers, hosts and the world. Pure.

Chains never change while networks, endpoints and ports come and go; those are elements of sets and maps. Only
the VNIs stand in rules, for want of a set type of 24 bits in nft 1.0. What holds: containers of one network
reach each other; networks don't, both ways, but by a published port; internal networks have no way out;
nobody outside reaches a container but by a published port; our VNIs come from known peers only.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from model.spec import Struct
from model.view import NetworkView
from net.backend.base import Scene, Traits, is_ipv6
from net.endpoint import mac_of
from net.host import EndpointRequest, PublishRequest
from net.naming import VETH, VXLAN, bridge_name, gateway_mac, veth_name, vxlan_name
from net.publish import elements
from net.state import Chain, ElementSet, Family, NftTable, Rule

RAW, DSTNAT, FILTER, SRCNAT = -300, -100, 0, 100
"""Priorities of netfilter hooks (nft(8)): before connection tracking, destination NAT, filter, source NAT."""
_IFNAME = "ifname"


class Member(Struct):
    """A network as the packet filter sees it."""

    view: NetworkView
    traits: Traits


def tables(
    members: Iterable[Member],
    scene: Scene,
    endpoints: Iterable[EndpointRequest],
    published: Iterable[PublishRequest],
) -> Mapping[Family, NftTable]:
    """Both our tables: `inet` for what is routed, `bridge` for what stays on a bridge."""
    known, feet = tuple(members), tuple(endpoints)
    return {"inet": _inet(known, scene, published), "bridge": _bridge(known, feet)}


def _inet(members: tuple[Member, ...], scene: Scene, published: Iterable[PublishRequest]) -> NftTable:
    inner = [link for member in members for link in member.traits.inner]
    lanes = [f"{a} . {b}" for m in members for a in m.traits.inner for b in m.traits.inner]
    open_ = [m for m in members if not m.view.spec.internal]
    outward = [bridge_name(member.view.id) for member in open_]
    ranges = [r for member in open_ for r in member.traits.own_ranges]
    peers = sorted({peer.address for peer in scene.peers.values()})
    vnis = sorted({member.view.vni for member in members if len(member.traits.inner) > 1})
    ports = elements(published)
    return NftTable(
        chains=_inet_chains(scene.vxlan_port, vnis),
        sets={
            "own": _set(_IFNAME, inner),
            "lanes": _set("ifname . ifname", lanes),
            "outward": _set(_IFNAME, outward),
            "out4": _set("ipv4_addr", (r for r in ranges if not is_ipv6(r)), interval=True),
            "out6": _set("ipv6_addr", (r for r in ranges if is_ipv6(r)), interval=True),
            "peers4": _set("ipv4_addr", (a for a in peers if not is_ipv6(a))),
            "peers6": _set("ipv6_addr", (a for a in peers if is_ipv6(a))),
            "port4": _port_map("inet_proto . inet_service", "ipv4_addr", ports["port4"]),
            "host4": _port_map("ipv4_addr . inet_proto . inet_service", "ipv4_addr", ports["host4"]),
            "port6": _port_map("inet_proto . inet_service", "ipv6_addr", ports["port6"]),
            "host6": _port_map("ipv6_addr . inet_proto . inet_service", "ipv6_addr", ports["host6"]),
        },
    )


def _inet_chains(vxlan_port: int, vnis: list[int]) -> Mapping[str, Chain]:
    tunnel: tuple[Rule, ...] = ()
    untracked: tuple[Rule, ...] = ()
    if vnis:
        ours = f"udp dport {vxlan_port} @th,96,24 {{ {', '.join(map(str, vnis))} }}"
        tunnel = (_rule(f"{ours} jump tunnel", "our VXLAN networks"),)
        untracked = (_rule(f"{ours} notrack", "tunnels need no connection tracking"),)
    guard = _rule("ip daddr 127.0.0.0/8 iifname @own drop", "loopback is the host's own")
    return {
        "tunnel": Chain(
            rules=(
                _rule("ip saddr @peers4 notrack accept", "known peer"),
                _rule("ip6 saddr @peers6 notrack accept", "known peer"),
                _rule("drop", "not a peer of this fleet"),
            )
        ),
        "from_own": Chain(
            rules=(
                _rule("ct state established,related accept", "answers"),
                _rule("iifname @outward ct status dnat accept", "published ports, from any open network"),
                _rule("oifname @own drop", "networks are apart"),
                _rule("iifname @outward accept", "open networks reach the outside"),
                _rule("drop", "internal networks don't"),
            )
        ),
        "to_own": Chain(
            rules=(
                _rule("ct state established,related accept", "answers"),
                _rule("ct status dnat accept", "published ports"),
                _rule("drop", "containers are reached by published ports only"),
            )
        ),
        "publish": Chain(rules=_publish_rules()),
        "early": Chain(type="filter", hook="prerouting", priority=RAW, rules=(guard, *tunnel)),
        "early_output": Chain(type="filter", hook="output", priority=RAW, rules=untracked),
        "forward": Chain(
            type="filter",
            hook="forward",
            priority=FILTER,
            rules=(
                _rule("iifname . oifname @lanes accept", "within one network"),
                _rule("iifname @own jump from_own", "from containers"),
                _rule("oifname @own jump to_own", "to containers"),
            ),
        ),
        "prerouting": Chain(
            type="nat",
            hook="prerouting",
            priority=DSTNAT,
            rules=(
                _rule("ip daddr != 127.0.0.0/8 fib daddr type local jump publish", "to this host"),
                _rule("meta nfproto ipv6 ip6 daddr != ::1 fib daddr type local jump publish", "to this host"),
            ),
        ),
        "output": Chain(
            type="nat",
            hook="output",
            priority=DSTNAT,
            rules=(_rule("fib daddr type local jump publish", "from this host to itself"),),
        ),
        "postrouting": Chain(type="nat", hook="postrouting", priority=SRCNAT, rules=_source_rules()),
    }


def _publish_rules() -> tuple[Rule, ...]:
    key = "meta l4proto . th dport map"
    return (
        _rule(f"dnat ip to ip daddr . {key} @host4", "published on one address"),
        _rule(f"dnat ip to {key} @port4", "published on all addresses"),
        _rule(f"dnat ip6 to ip6 daddr . {key} @host6", "published on one address"),
        _rule(f"dnat ip6 to {key} @port6", "published on all addresses"),
    )


def _source_rules() -> tuple[Rule, ...]:
    return (
        _rule("oifname @own ip saddr 127.0.0.0/8 masquerade", "loopback's address is good here only"),
        _rule("oifname @own ip6 saddr ::1 masquerade", "loopback's address is good here only"),
        _rule("oifname @own ct status dnat ip saddr @out4 masquerade", "hairpin: answers must come by us"),
        _rule("oifname @own ct status dnat ip6 saddr @out6 masquerade", "hairpin: answers must come by us"),
        _rule("oifname @own accept", "no NAT between containers"),
        _rule("ip saddr @out4 masquerade", "containers go out with the host's address"),
        _rule("ip6 saddr @out6 masquerade", "containers go out with the host's address"),
    )


def _bridge(members: tuple[Member, ...], endpoints: tuple[EndpointRequest, ...]) -> NftTable:
    """Sources are an endpoint's own; a gateway's MAC, the same on each host, stays off the tunnel. Both
    begin with a comparison of the link's prefix, which costs every other packet less than a look-up in a
    set."""
    anycast = [
        f"{vxlan_name(m.view.id)} . {gateway_mac(m.view.id)}"
        for m in members
        if m.traits.onlink and len(m.traits.inner) > 1
    ]
    feet = [(veth_name(e.instance, e.network), e) for e in endpoints]
    source = "iifname . ether saddr"
    return NftTable(
        chains={
            "guard": Chain(
                type="filter",
                hook="prerouting",
                priority=RAW,
                rules=(
                    _rule(f'iifname != "{VETH}*" accept', "not from a container"),
                    _rule(f"{source} . ip saddr @feet4 accept", "its own address"),
                    _rule(f"{source} . ip6 saddr @feet6 accept", "its own address"),
                    _rule(f"{source} . arp saddr ip @feet4 accept", "its own address"),
                    _rule("ip saddr 0.0.0.0 accept", "DHCP, before it has an address"),
                    _rule("arp saddr ip 0.0.0.0 accept", "probe, RFC 5227"),
                    _rule("ip6 saddr { ::, fe80::/10 } accept", "link-local, RFC 4291"),
                    _rule("ether type { ip, arp, ip6 } drop", "spoofed source"),
                ),
            ),
            "leave": Chain(
                type="filter",
                hook="postrouting",
                priority=FILTER,
                rules=(
                    _rule(
                        f'oifname "{VXLAN}*" oifname . ether saddr @anycast drop',
                        "each host is its own gateway",
                    ),
                ),
            ),
        },
        sets={
            "feet4": _set(
                "ifname . ether_addr . ipv4_addr",
                (f"{name} . {mac_of(e)} . {e.ipv4}" for name, e in feet if e.ipv4),
            ),
            "feet6": _set(
                "ifname . ether_addr . ipv6_addr",
                (f"{name} . {mac_of(e)} . {_canonical(e.ipv6)}" for name, e in feet if e.ipv6),
            ),
            "anycast": _set("ifname . ether_addr", anycast),
        },
    )


def _rule(text: str, why: str) -> Rule:
    return Rule(text=text, why=why)


def _set(type_: str, names: Iterable[str], *, interval: bool = False) -> ElementSet:
    return ElementSet(type=type_, interval=interval, elements=dict.fromkeys(names, ""))


def _port_map(key: str, address: str, found: Mapping[str, str]) -> ElementSet:
    return ElementSet(type=key, data=f"{address} . inet_service", elements=found)


def _canonical(address: str) -> str:
    return str(ipaddress.ip_address(address))
