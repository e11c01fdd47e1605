"""What the table `flota` knows of service addresses: who reaches them, when the source is translated. Pure.

Nothing here changes with a service: the ranges set aside for their addresses, and each endpoint's own
address, are all that it takes. Invariant: a service is reached from its own network and from this host only;
its members see the client's address wherever answers come back by us anyway.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from net.backend.base import Member, is_ipv6
from net.host import EndpointRequest
from net.naming import bridge_name
from net.state import Chain, ElementSet, Rule, element_set, rule


def sets(
    members: Iterable[Member], endpoints: Iterable[EndpointRequest], ranges: Iterable[str]
) -> Mapping[str, ElementSet]:
    known, feet = tuple(ranges), tuple(endpoints)
    onlink = (bridge_name(member.view.id) for member in members if member.traits.onlink)
    own4 = (e.ipv4 for e in feet if e.ipv4)
    own6 = (str(ipaddress.ip_address(e.ipv6)) for e in feet if e.ipv6)
    return {
        "vips4": element_set("ipv4_addr", (r for r in known if not is_ipv6(r)), interval=True),
        "vips6": element_set("ipv6_addr", (r for r in known if is_ipv6(r)), interval=True),
        "self4": element_set("ipv4_addr . ipv4_addr", (f"{a} . {a}" for a in own4)),
        "self6": element_set("ipv6_addr . ipv6_addr", (f"{a} . {a}" for a in own6)),
        "onlink": element_set("ifname", onlink),
    }


def chains() -> Mapping[str, Chain]:
    """`service`: the source of a connection that came by a service's address."""
    return {
        "service": Chain(
            rules=(
                rule("fib saddr type local masquerade", "this host: by its address in that network"),
                rule("ip saddr . ip daddr @self4 masquerade", "hairpin: a member asks its own service"),
                rule("ip6 saddr . ip6 daddr @self6 masquerade", "hairpin: a member asks its own service"),
                rule("oifname @onlink masquerade", "on-link: answers would not come by us"),
            )
        )
    }


def jumps() -> tuple[Rule, ...]:
    """For the chain of source NAT, ahead of what published ports need."""
    why = "service addresses"
    return (
        rule("oifname @own ct original ip daddr @vips4 goto service", why),
        rule("oifname @own ct original ip6 daddr @vips6 goto service", why),
    )


def refusals() -> tuple[Rule, ...]:
    """For the chain of what containers send to other networks than their own."""
    why = "a service is of its own network only"
    return (
        rule("ct original ip daddr @vips4 reject", why),
        rule("ct original ip6 daddr @vips6 reject", why),
    )
