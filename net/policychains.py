"""The nft chains that enforce policies, as values: what is routed (`inet`), and what stays on a bridge. Pure.

Each end is judged on its own host: what a container sends at the sender's, what it is sent at the receiver's.
An address leads by one map to its class's chain; that lets answers through, then what the class's sets hold,
and drops the rest. Without policies on a host there is nothing of this. Invariants: replies pass, in the
routed path by connection tracking, on a bridge (the kernel may have no tracking there) because only what
begins something is judged, and datagrams are remembered; names pass always; so does what this host itself
sends its containers.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from net.host import EndpointRequest
from net.naming import BRIDGE, SPEAKER, SPEAKER_PORT, VETH
from net.policy import HostPolicies, endpoint_key
from net.state import Chain, ElementSet, Family, NftTable, Rule, element_set, rule

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
    "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, 143 }"
)
"""Of neighbours (RFC 4861), and who listens to which group (MLDv2, RFC 3810)."""


def inet(policies: HostPolicies, feet: Iterable[EndpointRequest]) -> NftTable:
    """To be merged into the table of what is routed."""
    if not policies.classes:
        return NftTable()
    chains = dict(class_chains(policies))
    chains["judge"] = Chain(
        type="filter",
        hook="forward",
        priority=JUDGE,
        rules=(
            *verdicts("saddr", "sends", f'iifname "{BRIDGE}*"'),
            *verdicts("daddr", "gets", f'oifname "{BRIDGE}*"'),
        ),
    )
    inside = f'iifname {{ "{BRIDGE}*", "{SPEAKER}*" }}'
    chains["judge_local"] = Chain(
        type="filter",
        hook="input",
        priority=JUDGE,
        rules=(
            rule("ip daddr @names4 meta l4proto { tcp, udp } th dport 53 accept", "names are everybody's"),
            rule("ip6 daddr @names6 meta l4proto { tcp, udp } th dport 53 accept", "names are everybody's"),
            rule(f"{DISCOVERY} accept", "neighbours, RFC 4861"),
            *verdicts("saddr", "sends", inside),
        ),
    )
    return NftTable(chains=chains, sets=inet_sets(policies, feet))


def class_chains(policies: HostPolicies) -> Mapping[str, Chain]:
    """Of each class, where connections are tracked."""
    return {name: _class_chain(name, _TRACKED, "return") for name in policies.classes}


def inet_sets(policies: HostPolicies, feet: Iterable[EndpointRequest]) -> Mapping[str, ElementSet]:
    """Those that `class_chains` and `verdicts` look into."""
    return _sets(policies, feet, "inet")


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
    chains = {name: _class_chain(name, _BEGINNINGS, "goto remembered") for name in policies.classes}
    chains[OPEN] = Chain(rules=(rule("goto remembered", "no policy closes this direction"),))
    chains["remembered"] = Chain(rules=_remembering())
    chains["judge"] = Chain(
        type="filter",
        hook="forward",
        priority=JUDGE,
        rules=(
            rule(f'iifname "{SPEAKER_PORT}*" accept', "this host itself"),
            *verdicts("saddr", "sends", f'iifname "{VETH}*"'),
            *verdicts("daddr", "gets", f'oifname "{VETH}*"'),
        ),
    )
    sets = dict(_sets(policies, feet, "bridge"))
    for digit, kind in (("4", _TALKS4), ("6", _TALKS6)):
        sets[f"talks{digit}"] = ElementSet(
            type=kind[0], filled=f"{kind[1]}; size {MOST_REMEMBERED}; flags dynamic,timeout"
        )
    return NftTable(chains=chains, sets=sets)


def _sets(
    policies: HostPolicies, feet: Iterable[EndpointRequest], family: Family
) -> Mapping[str, ElementSet]:
    """The classes' own, and which address is of which class."""
    found: dict[str, dict[str, str]] = {name: {} for name in ("gets4", "gets6", "sends4", "sends6")}
    policed: dict[str, list[str]] = {"4": [], "6": []}
    for foot in feet:
        chosen = policies.endpoints.get(endpoint_key(foot.instance, foot.network))
        if chosen is None:
            continue
        default = OPEN if family == "bridge" else ""
        for text, digit in ((foot.ipv4, "4"), (foot.ipv6, "6")):
            if not text:
                continue
            address = str(ipaddress.ip_address(text))
            policed[digit].append(address)
            for side, name in (("gets", chosen.ingress), ("sends", chosen.egress)):
                if name or default:
                    found[f"{side}{digit}"][address] = f"jump {name or default}"
    maps = {
        name: ElementSet(type=f"ipv{name[-1]}_addr", data="verdict", elements=elements)
        for name, elements in found.items()
    }
    own = {name: one for sets in policies.classes.values() for name, one in sets.items()}
    if family == "bridge":
        return {**own, **maps}
    tracked = {f"policed{d}": element_set(f"ipv{d}_addr", addresses) for d, addresses in policed.items()}
    pairs = {
        f"same{d}": element_set(f"ipv{d}_addr . ipv{d}_addr", (f"{a} . {a}" for a in addresses))
        for d, addresses in policed.items()
    }
    return {**own, **maps, **tracked, **pairs}


def verdicts(side: str, way: str, links: str) -> tuple[Rule, ...]:
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


def _class_chain(name: str, answers: tuple[Rule, ...], allowed: str) -> Chain:
    """`allowed`: the verdict of what one of the class's sets holds."""
    peer = "saddr" if name.startswith("in-") else "daddr"
    found = list(answers)
    for family, digit in FAMILIES:
        key = f"{family} {peer}"
        found.append(rule(f"{key} @{name}-a{digit} {allowed}", "allowed, all ports"))
        found.append(
            rule(f"{key} . meta l4proto . th dport @{name}-p{digit} {allowed}", "allowed, this port")
        )
    return Chain(rules=(*found, rule("counter drop", "no policy allows it")))
