"""Encrypted networks in the packet filter: nothing of them is on the underlay in plain sight. Pure.

The routes say so already (`net.backend.wireguard`); this is the second fence, for routes that others add and
for packets that others send. Per network: what bears one of its addresses comes by its own links or from this
host itself, what is for one leaves by its own links, and its VXLAN number is taken from nobody. Chains stand
while generations of keys come and go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from net.backend.base import Member, is_ipv6
from net.naming import bridge_name, wireguard_stem
from net.state import Chain, Rule, rule


def sealed(members: Iterable[Member]) -> tuple[Member, ...]:
    return tuple(member for member in members if member.traits.sealed)


def arrivals(members: Iterable[Member], vxlan_port: int) -> tuple[Rule, ...]:
    """Of what arrives, before anything else sees it."""
    found, vnis = list[Rule](), list[int]()
    for member in members:
        vnis.append(member.view.vni)
        found += [
            rule(f"{_elsewhere('iifname', member)} {_family(r)} saddr {r} counter drop", "not encrypted")
            for r in member.traits.own_ranges
        ]
    if vnis:
        numbers = ", ".join(map(str, sorted(vnis)))
        found.append(rule(f"udp dport {vxlan_port} @th,96,24 {{ {numbers} }} counter drop", "not encrypted"))
    return tuple(found)


def chains(members: Iterable[Member]) -> Mapping[str, Chain]:
    """Of what leaves; `seal` is the forward chain's first stop."""
    rules = tuple(
        rule(f"{_elsewhere('oifname', member)} {_family(r)} daddr {r} counter drop", "would not be encrypted")
        for member in members
        for r in member.traits.own_ranges
    )
    if not rules:
        return {}
    sent = Chain(type="filter", hook="output", priority=0, rules=(rule("jump seal", "encrypted networks"),))
    return {"seal": Chain(rules=rules), "seal_output": sent}


def forwarding(members: Iterable[Member]) -> tuple[Rule, ...]:
    return (rule("jump seal", "encrypted networks"),) if sealed(members) else ()


def _elsewhere(side: str, member: Member) -> str:
    network = member.view.id
    return f'{side} != "lo" {side} != "{bridge_name(network)}" {side} != "{wireguard_stem(network)}*"'


def _family(cidr: str) -> str:
    return "ip6" if is_ipv6(cidr) else "ip"
