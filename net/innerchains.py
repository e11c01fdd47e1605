"""Policies of endpoints on the site's own network, as an nft table inside the container's namespace. Pure.

What passes there meets no packet filter of the host, so each end is judged by its own. The classes are those
of `net.policychains`; sets of all classes that the container's endpoints are of stand in its one table. What
has NET_ADMIN in the container can change it; by default nothing has. Invariants: nothing of this is there for
a container that no policy selects; its host always reaches it, and it always its host's names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from net.host import EndpointRequest
from net.policy import HostPolicies, endpoint_key
from net.policychains import DISCOVERY, FAMILIES, class_chains, inner_sets
from net.state import Chain, NftTable, Rule, rule

FILTER = 0
"""Priority (nft(8))."""


def table(
    policies: HostPolicies, feet: Sequence[EndpointRequest], hosts: Mapping[str, tuple[str, ...]]
) -> NftTable | None:
    """Of one container with these endpoints; `hosts` are this host's own addresses, by network. None: no
    policy selects any of them."""
    chosen = [(f, c) for f in feet if (c := policies.endpoints.get(endpoint_key(f.instance, f.network)))]
    enter = {foot.ifname: one.ingress for foot, one in chosen if one.ingress}
    leave = {foot.ifname: one.egress for foot, one in chosen if one.egress}
    used = {*enter.values(), *leave.values()}
    if not used:
        return None
    known = replace(policies, classes={name: policies.classes[name] for name in sorted(used)})
    own = sorted({address for foot in feet for address in hosts.get(foot.network, ())})
    return NftTable(
        chains={
            **class_chains(known),
            "enter": _hooked("input", (*_host(own, "saddr", ""), *_judged("iifname", enter))),
            "leave": _hooked(
                "output",
                (
                    *_host(own, "daddr", " meta l4proto { tcp, udp } th dport 53"),
                    rule(f"{DISCOVERY} accept", "neighbours, RFC 4861"),
                    *_judged("oifname", leave),
                ),
            ),
        },
        sets=inner_sets(known, feet),
    )


def _judged(side: str, classes: Mapping[str, str]) -> Iterable[Rule]:
    """By the interface, whatever addresses a packet bears: the kernel takes its link-local ones too, and
    those of groups."""
    why = "what it is sent" if side == "iifname" else "what it sends"
    return [rule(f'{side} "{link}" jump {name}', why) for link, name in sorted(classes.items())]


def _hooked(hook: str, rules: tuple[Rule, ...]) -> Chain:
    return Chain(type="filter", hook=hook, priority=FILTER, rules=rules)


def _host(own: Iterable[str], side: str, what: str) -> tuple[Rule, ...]:
    addresses = tuple(own)
    return tuple(
        rule(f"{family} {side} {{ {', '.join(found)} }}{what} accept", "the container's host")
        for family, digit in FAMILIES
        if (found := [a for a in addresses if (":" in a) == (digit == "6")])
    )
