"""What the table `flota` knows of service addresses: who may reach them. Pure.

Nothing here changes with a service: the ranges set aside for their addresses are all that it takes.
Invariant: a service is reached from its own network and from this host only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from net.backend.base import is_ipv6
from net.naming import BRIDGE
from net.state import ElementSet, Rule, element_set, rule


def sets(ranges: Iterable[str]) -> Mapping[str, ElementSet]:
    known = tuple(ranges)
    return {
        "vips4": element_set("ipv4_addr", (r for r in known if not is_ipv6(r)), interval=True),
        "vips6": element_set("ipv6_addr", (r for r in known if is_ipv6(r)), interval=True),
    }


def sources() -> tuple[Rule, ...]:
    """For the chain of source NAT, ahead of what published ports need."""
    why = "services have their own rules"
    return (
        rule("oifname @own ct original ip daddr @vips4 accept", why),
        rule("oifname @own ct original ip6 daddr @vips6 accept", why),
    )


def refusals() -> tuple[Rule, ...]:
    """For the chain of what containers send to other networks than their own."""
    why = "a service is of its own network only"
    return (
        rule("ct original ip daddr @vips4 reject", why),
        rule("ct original ip6 daddr @vips6 reject", why),
    )


def ways() -> tuple[Rule, ...]:
    """For the chain of what the host sends. The kernel tells a container whose packets leave by the link they
    came by to send them there itself (RFC 4861, 8.2), and has no switch for that in IPv6: what was translated
    would come back untranslated."""
    return (rule(f'oifname "{BRIDGE}*" icmpv6 type nd-redirect drop', "a container's way is by this host"),)
