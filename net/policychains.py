"""The nft chains that enforce policies, as values: what is routed (`inet`), and what stays on a bridge. Pure.

Each end is judged on its own host: what a container sends at the sender's, what it is sent at the receiver's.
One map leads to its class's chain, of what is routed by its address, on a bridge by its port, whatever
addresses a frame has. That lets answers through, then what the class's sets hold, and drops the rest but for
what a link needs. Without policies on a host there is nothing of this. Invariants: replies pass, in the
routed path by connection tracking, on a bridge (the kernel may have no tracking there) because only what
begins something is judged, and datagrams are remembered; names pass always; so does what this host itself
sends its containers.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from net.endpoint import mac_of
from net.host import EndpointRequest
from net.naming import (
    BRIDGE,
    OURS,
    SITE_BRIDGE,
    SPEAKER_PORT,
    bridge_name,
    link_local,
    site_bridge_name,
    speaker_name,
    veth_name,
)
from net.policy import HostPolicies, Policed, endpoint_key
from net.state import Chain, ElementSet, NftTable, Rule, element_set, rule

JUDGE = -1
"""Priority: ahead of the chain that lets networks' own traffic pass (nft(8))."""
OPEN = "open"
"""On a bridge: the chain of a direction that no policy closes, but whose datagrams are remembered."""
REMEMBERED = "3m"
"""As long as connection tracking remembers an assured UDP stream (nf_conntrack-sysctl, udp_timeout_stream is
two minutes)."""
MOST_REMEMBERED = 1 << 17
SEED = "0xf107c"
FAMILIES = (("ip", "4"), ("ip6", "6"))
DISCOVERY = (
    "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, "
    "mld-listener-query, mld-listener-report, mld-listener-done, 143 }"
)
"""Of neighbours (RFC 4861), and who listens to which group (RFC 2710; MLDv2, RFC 3810)."""


def inet(policies: HostPolicies, feet: Iterable[EndpointRequest], *, sited: bool = False) -> NftTable:
    """To be merged into the table of what is routed, which knows where names are asked for. `sited`: there
    are bridges on the site's own network."""
    if not policies.classes:
        return NftTable()
    known = tuple(feet)
    bridges = (BRIDGE, SITE_BRIDGE) if sited else (BRIDGE,)
    chains = dict(class_chains(policies, tail=_NAMES))
    chains["judge"] = Chain(
        type="filter",
        hook="forward",
        priority=JUDGE,
        rules=(
            *(one for link in bridges for one in _verdicts("saddr", "sends", f'iifname "{link}*"')),
            *(one for link in bridges for one in _verdicts("daddr", "gets", f'oifname "{link}*"')),
        ),
    )
    inside = f'iifname "{OURS}*"'
    chains["judge_local"] = Chain(
        type="filter",
        hook="input",
        priority=JUDGE,
        rules=(
            *_verdicts("saddr", "sends", inside),
            rule(f"{inside} ip6 saddr fe80::/10 iifname . ip6 saddr vmap @local6", "what it sends"),
        ),
    )
    return NftTable(chains=chains, sets={**inner_sets(policies, known), **_addresses(policies, known)})


def class_chains(policies: HostPolicies, tail: tuple[Rule, ...] = ()) -> Mapping[str, Chain]:
    """Of each class, where connections are tracked. `tail`: what of what it sends passes besides."""
    return {name: _class_chain(name, _TRACKED, "return", tail) for name in policies.classes}


def inner_sets(policies: HostPolicies, feet: Iterable[EndpointRequest]) -> Mapping[str, ElementSet]:
    """Those that `class_chains` look into."""
    addresses = [(digit, address) for foot, _ in _chosen(policies, feet) for digit, address in _own(foot)]
    pairs = {
        f"same{d}": element_set(f"ipv{d}_addr . ipv{d}_addr", (f"{a} . {a}" for n, a in addresses if n == d))
        for _, d in FAMILIES
    }
    return {**_class_sets(policies), **pairs}


def tracking(policies: HostPolicies) -> tuple[Rule, ...]:
    """What in the raw chain decides whether traffic between containers is tracked; empty: nothing is."""
    if not policies.classes:
        return ()
    return tuple(
        rule(f"{family} {side} @policed{digit} accept", "a policy selects it: its connections are known")
        for family, digit in FAMILIES
        for side in ("saddr", "daddr")
    )


def bridge(policies: HostPolicies, feet: Iterable[EndpointRequest]) -> NftTable:
    """To be merged into the table of what stays on a bridge."""
    if not policies.classes:
        return NftTable()
    chains = {
        name: _class_chain(name, _BEGINNINGS, "goto remembered", _NAMES, _BESIDE) for name in policies.classes
    }
    chains[OPEN] = Chain(rules=(rule("goto remembered", "no policy closes this direction"),))
    chains["remembered"] = Chain(rules=_remembering())
    chains["judge"] = Chain(
        type="filter",
        hook="forward",
        priority=JUDGE,
        rules=(
            rule(f'iifname "{SPEAKER_PORT}*" accept', "this host itself"),
            rule("iifname vmap @sends", "what it sends"),
            rule("oifname vmap @gets", "what it is sent"),
        ),
    )
    sets = {**_class_sets(policies), **_ports(policies, feet)}
    for digit, kind in (("4", _TALKS4), ("6", _TALKS6)):
        sets[f"talks{digit}"] = ElementSet(
            type=kind[0], filled=f"{kind[1]}; size {MOST_REMEMBERED}; flags dynamic,timeout"
        )
    return NftTable(chains=chains, sets=sets)


def _chosen(
    policies: HostPolicies, feet: Iterable[EndpointRequest]
) -> Iterable[tuple[EndpointRequest, Policed]]:
    """The endpoints that a policy selects, and their classes."""
    for foot in feet:
        chosen = policies.endpoints.get(endpoint_key(foot.instance, foot.network))
        if chosen is not None:
            yield foot, chosen


def _own(foot: EndpointRequest) -> Iterable[tuple[str, str]]:
    """Its addresses, each with its family's digit."""
    for text, digit in ((foot.ipv4, "4"), (foot.ipv6, "6")):
        if text:
            yield digit, str(ipaddress.ip_address(text))


def _class_sets(policies: HostPolicies) -> Mapping[str, ElementSet]:
    return {name: one for sets in policies.classes.values() for name, one in sets.items()}


def _addresses(policies: HostPolicies, feet: Iterable[EndpointRequest]) -> Mapping[str, ElementSet]:
    """Which address is of which class. An address of the link's own is so on its host's links there only:
    an endpoint elsewhere may have the same, as it may have the same MAC."""
    found: dict[str, dict[str, str]] = {f"{way}{d}": {} for way in ("gets", "sends") for _, d in FAMILIES}
    policed: dict[str, list[str]] = {"4": [], "6": []}
    local: dict[str, str] = {}
    for foot, chosen in _chosen(policies, feet):
        for digit, address in _own(foot):
            policed[digit].append(address)
            for way, name in (("gets", chosen.ingress), ("sends", chosen.egress)):
                if name:
                    found[f"{way}{digit}"][address] = f"jump {name}"
        if foot.ipv6 and chosen.egress:
            own = link_local(mac_of(foot))
            links = (named(foot.network) for named in (bridge_name, speaker_name, site_bridge_name))
            local |= {f"{link} . {own}": f"jump {chosen.egress}" for link in links}
    return {
        **{n: ElementSet(type=f"ipv{n[-1]}_addr", data="verdict", elements=e) for n, e in found.items()},
        **{f"policed{d}": element_set(f"ipv{d}_addr", addresses) for d, addresses in policed.items()},
        "local6": ElementSet(type="ifname . ipv6_addr", data="verdict", elements=local),
    }


def _ports(policies: HostPolicies, feet: Iterable[EndpointRequest]) -> Mapping[str, ElementSet]:
    """Which port of a bridge is of which class."""
    found: dict[str, dict[str, str]] = {"gets": {}, "sends": {}}
    for foot, chosen in _chosen(policies, feet):
        port = veth_name(foot.instance, foot.network)
        found["gets"][port] = f"jump {chosen.ingress or OPEN}"
        found["sends"][port] = f"jump {chosen.egress or OPEN}"
    return {way: ElementSet(type="ifname", data="verdict", elements=found[way]) for way in found}


def _verdicts(side: str, way: str, links: str) -> tuple[Rule, ...]:
    """What comes by these links is judged by its address on that side, in the maps of that way (`gets`,
    `sends`)."""
    why = "what it sends" if way == "sends" else "what it is sent"
    return tuple(rule(f"{links} {family} {side} vmap @{way}{digit}", why) for family, digit in FAMILIES)


_TRACKED = (
    rule("ct state established,related return", "answers"),
    rule(f"{DISCOVERY} return", "neighbours, RFC 4861, where bridged frames come here too"),
    rule("ip saddr . ip daddr @same4 return", "itself, by a service's address"),
    rule("ip6 saddr . ip6 daddr @same6 return", "itself, by a service's address"),
)
_HASHED = "jhash ip6 {} mod 0xffffffff seed " + SEED
_ERRORS = "destination-unreachable, time-exceeded, parameter-problem"
_BEGINNINGS = (
    rule("tcp flags & (syn | ack | rst) != syn return", "begins no connection"),
    rule(f"icmp type {{ echo-reply, {_ERRORS} }} return", "answers"),
    rule(f"icmpv6 type {{ echo-reply, packet-too-big, {_ERRORS} }} return", "answers"),
    rule(f"{DISCOVERY} return", "neighbours, RFC 4861"),
    rule("meta l4proto sctp @th,96,8 != 1 return", "no INIT chunk, RFC 9260"),
    rule("ip daddr . ip saddr . udp dport . udp sport @talks4 return", "answers to datagrams"),
    rule(
        f"{_HASHED.format('daddr')} . {_HASHED.format('saddr')} . udp dport . udp sport @talks6 return",
        "answers to datagrams",
    ),
)
_BESIDE = (
    rule("meta protocol arp return", "neighbours, RFC 826"),
    rule("ip frag-off & 0x1fff != 0 return", "of a datagram whose beginning was judged"),
    rule("frag frag-off != 0 return", "of a datagram whose beginning was judged"),
)
"""On a bridge packets come in the parts that they were sent in; a later one is worthless alone."""
_ARRIVES = (
    rule("udp sport . udp dport { 67 . 68, 547 . 546 } return", "DHCP servers' answers"),
    rule("igmp type membership-query return", "who listens to which group, RFC 3376"),
)
_LEAVES = (
    rule("ip daddr 255.255.255.255 udp sport 68 udp dport 67 return", "asks for an address, RFC 2131"),
    rule("ip6 daddr ff02::1:2 udp sport 546 udp dport 547 return", "asks for an address, RFC 8415"),
)
"""What a link needs, last of all: it is rare."""
_NAMES = tuple(
    rule(
        f"{family} daddr @names{digit} meta l4proto {{ tcp, udp }} th dport 53 return",
        "names are everybody's",
    )
    for family, digit in FAMILIES
)
_TALKS4 = (
    "ipv4_addr . ipv4_addr . inet_service . inet_service",
    "type ipv4_addr . ipv4_addr . inet_service . inet_service",
)
_TALKS6 = (
    "integer . integer . inet_service . inet_service",
    "typeof numgen inc mod 2 . numgen inc mod 2 . udp sport . udp dport",
)
"""As listed, and as declared. The key of an update holds 16 bytes in nft 1.0.6: IPv6 addresses are hashed."""


def _remembering() -> tuple[Rule, ...]:
    return (
        rule(
            "ip version 4 update @talks4 "
            f"{{ ip saddr . ip daddr . udp sport . udp dport timeout {REMEMBERED} }}",
            "its answer is let through",
        ),
        rule(
            f"ip6 version 6 update @talks6 {{ {_HASHED.format('saddr')} . {_HASHED.format('daddr')} . "
            f"udp sport . udp dport timeout {REMEMBERED} }}",
            "its answer is let through",
        ),
    )


def _class_chain(
    name: str,
    answers: tuple[Rule, ...],
    allowed: str,
    names: tuple[Rule, ...],
    beside: tuple[Rule, ...] = (),
) -> Chain:
    """`allowed`: the verdict of what one of the class's sets holds."""
    arriving = name.startswith("in-")
    peer = "saddr" if arriving else "daddr"
    found = list(answers)
    for family, digit in FAMILIES:
        key = f"{family} {peer}"
        found.append(rule(f"{key} @{name}-a{digit} {allowed}", "allowed, all ports"))
        found.append(
            rule(f"{key} . meta l4proto . th dport @{name}-p{digit} {allowed}", "allowed, this port")
        )
    found += (*beside, *(_ARRIVES if arriving else (*_LEAVES, *names)))
    return Chain(rules=(*found, rule("counter drop", "no policy allows it")))
