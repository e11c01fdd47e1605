"""What the packet filter knows of networks whose packets pass the underlay's link as they are. Pure.

That link is everybody's, so unlike a tunnel it says nothing about whose a packet is. One that comes by it
with a container's source passes only if source and destination are of one network, and if the way back to its
source leads to the link too: routes of ours lead to peers' blocks alone. All else between them is dropped
where it arrives, so that nobody need ask again: on bulk traffic each look-up counts. Without such a network
there is nothing of this; a peer more or less changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from model.netoptions import apart
from net.backend.base import Member, is_ipv6
from net.naming import BRIDGE
from net.spans import without
from net.state import Chain, ElementSet, Rule, element_set, rule

_FAMILIES = (("ip", "4"), ("ip6", "6"))
BACK = "fib saddr . iif oif exists"
"""The route to the source leads out of the link that the packet came by (nft(8), FIB EXPRESSIONS)."""


def link_of(members: Iterable[Member]) -> str:
    """The underlay's; empty where no network needs it."""
    return next((m.traits.direct for m in members if m.traits.direct), "")


def sets(members: Iterable[Member]) -> Mapping[str, ElementSet]:
    """direct: a network's addresses, and those of them that are not this host's own. near: the same of the
    networks whose containers may talk to each other."""
    direct: dict[str, list[str]] = {"4": [], "6": []}
    near: dict[str, list[str]] = {"4": [], "6": []}
    for member in members:
        if not member.traits.direct:
            continue
        for cidr in member.traits.own_ranges:
            digit = "6" if is_ipv6(cidr) else "4"
            pairs = [f"{cidr} . {span}" for span in without(cidr, member.traits.here)]
            direct[digit] += pairs
            near[digit] += [] if apart(member.view.spec.options) else pairs
    return {
        **{f"direct{d}": element_set(f"ipv{d}_addr . ipv{d}_addr", found, interval=True)
           for d, found in direct.items()},
        **{f"near{d}": element_set(f"ipv{d}_addr . ipv{d}_addr", found, interval=True)
           for d, found in near.items()},
    }  # fmt: skip


def chains(link: str, verdict: str) -> Mapping[str, Chain]:
    """`verdict`: what becomes of packets between containers."""
    if not link:
        return {}
    rules = list[Rule]()
    for family, digit in _FAMILIES:
        pair = f"{family} saddr . {family} daddr @direct{digit}"
        rules += [
            rule(f"{pair} {BACK} {verdict}", "between containers, by the hosts' link"),
            rule(f"{pair} counter drop", "an address that is nobody's there"),
        ]
    return {"from_link": Chain(rules=tuple(rules))}


def arrivals(link: str) -> tuple[Rule, ...]:
    """For the chain ahead of connection tracking."""
    return (rule(f'iifname "{link}" jump from_link', "maybe containers of other hosts"),) if link else ()


def forwarding(link: str) -> tuple[Rule, ...]:
    """Ahead of all others. A container's own source is its own by its bridge's guard, another host's by
    `from_link`."""
    if not link:
        return ()
    return tuple(
        rule(
            f"{way} {family} saddr . {family} daddr @near{digit} accept",
            "within one network, by the hosts' link",
        )
        for way in (f'oifname "{link}" iifname "{BRIDGE}*"', f'iifname "{link}" oifname "{BRIDGE}*"')
        for family, digit in _FAMILIES
    )


def refusals(link: str) -> tuple[Rule, ...]:
    """For the chain of what containers send to other networks than their own."""
    if not link:
        return ()
    return tuple(
        rule(f'oifname "{link}" {family} daddr @inside{digit} drop', "networks are apart on other hosts too")
        for family, digit in _FAMILIES
    )


def sources(link: str) -> tuple[Rule, ...]:
    """For the chain of source NAT, ahead of what leaves for elsewhere."""
    if not link:
        return ()
    return tuple(
        rule(
            f'oifname "{link}" {family} saddr . {family} daddr @direct{digit} accept',
            "no NAT between containers",
        )
        for family, digit in _FAMILIES
    )
