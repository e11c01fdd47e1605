"""The packet filter as a value: which traffic passes between containers, hosts and the world. Pure.

Chains never change while endpoints and ports come and go; those are elements of sets and maps. Only the VNIs
stand in rules, for want of a set type of 24 bits in nft 1.0. What holds: containers of one network reach each
other, with no connection tracking on their way; networks don't, both ways, but by a published port; internal
networks have no way out; nobody outside reaches a container but by a published port; our VNIs come from known
peers only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from model.netoptions import apart
from net import (
    directrules,
    hostfirewall,
    ingressrules,
    l2guard,
    policychains,
    sealing,
    servicenat,
    sourceports,
    unroutedrules,
    untracked,
)
from net.backend.base import Member, Scene, is_ipv6
from net.host import EndpointRequest, PublishRequest
from net.hostfirewall import NO_FIREWALL, HostFirewall
from net.names import has_names
from net.policy import HostPolicies
from net.publish import elements
from net.spans import without
from net.state import Chain, ElementSet, Family, NftTable, Rule, element_set, rule
from net.subnets import resolvers

DSTNAT, FILTER, SRCNAT = -100, 0, 100
"""Priorities of netfilter hooks (nft(8)): destination NAT, filter, source NAT."""
_IFNAME = "ifname"
NO_POLICIES = HostPolicies()


def tables(
    members: Iterable[Member],
    scene: Scene,
    endpoints: Iterable[EndpointRequest],
    published: Iterable[PublishRequest],
    service_ranges: Iterable[str] = (),
    policies: HostPolicies = NO_POLICIES,
    firewall: HostFirewall = NO_FIREWALL,
) -> Mapping[Family, NftTable]:
    """Both our tables: `inet` for what is routed, `bridge` for what stays on a bridge."""
    known, feet = tuple(members), tuple(endpoints)
    names = NftTable(sets=_names(known))
    sited = any(m.traits.bridge for m in known)
    inet = _inet(known, scene, published, policies, firewall)
    services = NftTable(sets=servicenat.sets(service_ranges))
    switched = policychains.bridge(policies, feet)
    return {
        "inet": _joined(inet, names, services, policychains.inet(policies, feet, sited=sited)),
        "bridge": _joined(l2guard.table(known, feet), switched, *((names,) if switched.chains else ())),
    }


def _names(members: Iterable[Member]) -> Mapping[str, ElementSet]:
    """Where containers of this host ask for names."""
    asked = [address for m in members if has_names(m.view) for address in resolvers(m.view)]
    return {
        "names4": element_set("ipv4_addr", (a for a in asked if not is_ipv6(a))),
        "names6": element_set("ipv6_addr", (a for a in asked if is_ipv6(a))),
    }


def _joined(*tables: NftTable) -> NftTable:
    return NftTable(
        chains={name: chain for table in tables for name, chain in table.chains.items()},
        sets={name: found for table in tables for name, found in table.sets.items()},
    )


def _inet(
    members: tuple[Member, ...],
    scene: Scene,
    published: Iterable[PublishRequest],
    policies: HostPolicies,
    firewall: HostFirewall,
) -> NftTable:
    inner = [link for member in members for link in member.traits.inner]
    lanes = [
        f"{a} . {b}"
        for m in members
        if not apart(m.view.spec.options)
        for a in m.traits.inner
        for b in m.traits.inner
    ]
    tunnelled = (m for m in members if len(m.traits.inner) > 1 and not m.traits.sealed)
    vnis = sorted({member.view.vni for member in tunnelled})
    closed = sealing.sealed(members)
    ports = elements(published)
    ingress, link = ingressrules.member_of(members), directrules.link_of(members)
    shims = any(m.traits.upper is not None and m.traits.inner for m in members)
    sited = any(m.traits.bridge for m in members)
    tracking = policychains.tracking(policies)
    closing = unroutedrules.forwarding(firewall.unrouted, members)
    return NftTable(
        chains={
            **_inet_chains(scene, vnis, tracking, ingress, closed, link, closing, shims=shims, sited=sited),
            **_publish_chains(firewall),
            **ingressrules.chains(ingress, scene),
            **sealing.chains(closed),
        },
        sets={
            **ingressrules.sets(ingress, scene),
            **directrules.sets(members),
            "own": element_set(_IFNAME, inner),
            "lanes": element_set("ifname . ifname", lanes),
            **_spans(members, scene),
            "port4": _port_map("inet_proto . inet_service", "ipv4_addr", ports["port4"]),
            "host4": _port_map("ipv4_addr . inet_proto . inet_service", "ipv4_addr", ports["host4"]),
            "port6": _port_map("inet_proto . inet_service", "ipv6_addr", ports["port6"]),
            "host6": _port_map("ipv6_addr . inet_proto . inet_service", "ipv6_addr", ports["host6"]),
            **{name: _client_map(name, found) for name, found in ports.items() if "for" in name},
            **sourceports.sets(published),
        },
    )


def _spans(members: tuple[Member, ...], scene: Scene) -> Mapping[str, ElementSet]:
    """Links and ranges with a way out, those whose traffic stays between containers, and the peers."""
    open_ = [m for m in members if not m.view.spec.internal]
    ranges = [r for member in open_ for r in member.traits.own_ranges]
    inside = [span for m in members for r in m.traits.own_ranges for span in without(r, m.traits.here)]
    peers = sorted({peer.address for peer in scene.peers.values()})
    return {
        "outward": element_set(_IFNAME, [link for member in open_ for link in member.traits.inner[:1]]),
        "out4": element_set("ipv4_addr", (r for r in ranges if not is_ipv6(r)), interval=True),
        "out6": element_set("ipv6_addr", (r for r in ranges if is_ipv6(r)), interval=True),
        "inside4": element_set("ipv4_addr", (r for r in inside if not is_ipv6(r)), interval=True),
        "inside6": element_set("ipv6_addr", (r for r in inside if is_ipv6(r)), interval=True),
        "peers4": element_set("ipv4_addr", (a for a in peers if not is_ipv6(a))),
        "peers6": element_set("ipv6_addr", (a for a in peers if is_ipv6(a))),
    }


def _inet_chains(
    scene: Scene,
    vnis: list[int],
    tracking: tuple[Rule, ...],
    ingress: Member | None,
    closed: tuple[Member, ...],
    link: str,
    closing: tuple[Rule, ...],
    *,
    shims: bool,
    sited: bool,
) -> Mapping[str, Chain]:
    unsealed = sealing.arrivals(closed, scene.vxlan_port)
    return {
        **untracked.chains(scene, vnis, tracking, unsealed, link, shims=shims, sited=sited),
        **_forward_chains(scene.vxlan_port, ingress, closed, link, closing),
        "postrouting": Chain(
            type="nat", hook="postrouting", priority=SRCNAT, rules=_source_rules(ingress, link)
        ),
    }


def _tunnels_apart(vxlan_port: int) -> tuple[Rule, ...]:
    """What a container sends to another host leaves with this host's address, which that one knows as a
    peer's: a container could speak on networks that it is not on."""
    why = "hosts alone speak by tunnels"
    return (
        rule(f"ip daddr @peers4 udp dport {vxlan_port} counter drop", why),
        rule(f"ip6 daddr @peers6 udp dport {vxlan_port} counter drop", why),
    )


def _forward_chains(
    vxlan_port: int,
    ingress: Member | None,
    closed: tuple[Member, ...],
    link: str,
    closing: tuple[Rule, ...],
) -> Mapping[str, Chain]:
    return {
        "from_own": Chain(
            rules=(
                *_tunnels_apart(vxlan_port),
                rule("ct state established,related accept", "answers"),
                *servicenat.refusals(),
                rule("iifname @outward ct status dnat accept", "published ports, from any open network"),
                rule("oifname @own drop", "networks are apart"),
                *directrules.refusals(link),
                rule("iifname @outward accept", "open networks reach the outside"),
                rule("drop", "internal networks don't"),
            )
        ),
        "to_own": Chain(
            rules=(
                rule("ct state established,related accept", "answers"),
                rule("ip saddr @inside4 counter drop", "a container's address does not come from outside"),
                rule("ip6 saddr @inside6 counter drop", "a container's address does not come from outside"),
                rule("ct status dnat accept", "published ports"),
                rule("counter drop", "containers are reached by published ports only"),
            )
        ),
        "forward": Chain(
            type="filter",
            hook="forward",
            priority=FILTER,
            rules=(
                *sealing.forwarding(closed),
                *directrules.forwarding(link),
                rule("iifname . oifname @lanes accept", "within one network"),
                *ingressrules.forwarding(ingress),
                rule("iifname @own jump from_own", "from containers"),
                rule("oifname @own jump to_own", "to containers"),
                *closing,
            ),
        ),
    }


def _publish_chains(firewall: HostFirewall) -> Mapping[str, Chain]:
    """From outside, the host's own firewall has a say where no allow-list has."""
    entry = hostfirewall.OUTSIDE if firewall.chains else "publish"
    listed = (rule("jump publish_some", "who is in an allow-list"),)
    return {
        "publish_some": Chain(rules=_listed_rules()),
        "publish": Chain(rules=(*_open_rules(), *listed)),
        **hostfirewall.gate(firewall, "publish", listed),
        "prerouting": Chain(
            type="nat",
            hook="prerouting",
            priority=DSTNAT,
            rules=(
                rule(f"ip daddr != 127.0.0.0/8 fib daddr type local jump {entry}", "to this host"),
                rule(f"meta nfproto ipv6 ip6 daddr != ::1 fib daddr type local jump {entry}", "to this host"),
            ),
        ),
        "output": Chain(
            type="nat",
            hook="output",
            priority=DSTNAT,
            rules=(
                rule("meta nfproto ipv4 fib daddr type local jump publish", "from this host to itself"),
                rule("ip6 daddr != ::1 fib daddr type local jump publish", "::1 would get no answer"),
            ),
        ),
    }


def _open_rules() -> tuple[Rule, ...]:
    key = "meta l4proto . th dport map"
    return (
        rule(f"dnat ip to ip daddr . {key} @host4", "published on one address"),
        rule(f"dnat ip to {key} @port4", "published on all addresses"),
        rule(f"dnat ip6 to ip6 daddr . {key} @host6", "published on one address"),
        rule(f"dnat ip6 to {key} @port6", "published on all addresses"),
    )


def _listed_rules() -> tuple[Rule, ...]:
    clients = "meta l4proto . th dport ."
    some = "meta l4proto { tcp, udp, sctp }"  # nft 1.0 wants it said for maps of intervals
    one, all_ = "published on one address for some", "published on all addresses for some"
    return (
        rule(f"{some} dnat ip to ip daddr . {clients} ip saddr map @hostfor4", one),
        rule(f"{some} dnat ip to {clients} ip saddr map @portfor4", all_),
        rule(f"{some} dnat ip6 to ip6 daddr . {clients} ip6 saddr map @hostfor6", one),
        rule(f"{some} dnat ip6 to {clients} ip6 saddr map @portfor6", all_),
    )


def _source_rules(ingress: Member | None, link: str) -> tuple[Rule, ...]:
    return (
        rule("oifname @own ip saddr 127.0.0.0/8 masquerade", "loopback's address is good here only"),
        *servicenat.sources(),
        *ingressrules.sources(ingress),
        rule("oifname @own ct status dnat ip saddr @out4 masquerade", "hairpin: answers must come by us"),
        rule("oifname @own ct status dnat ip6 saddr @out6 masquerade", "hairpin: answers must come by us"),
        rule("oifname @own accept", "no NAT between containers"),
        *directrules.sources(link),
        *sourceports.rules(),
        rule("ip saddr @out4 masquerade", "containers go out with the host's address"),
        rule("ip6 saddr @out6 masquerade", "containers go out with the host's address"),
    )


def _port_map(key: str, address: str, found: Mapping[str, str]) -> ElementSet:
    return ElementSet(type=key, data=f"{address} . inet_service", elements=found)


def _client_map(name: str, found: Mapping[str, str]) -> ElementSet:
    address = f"ipv{name[-1]}_addr"
    parts = ("inet_proto", "inet_service", address)
    words = " . ".join((address, *parts) if name.startswith("host") else parts)
    return ElementSet(type=words, data=f"{address} . inet_service", interval=True, elements=found)
