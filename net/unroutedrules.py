"""Networks make a host a router for containers, not between its other links. Pure.

Invariant: only what nobody routed before is closed (`net.kernel.unrouted`), from a link to another, so that
frames which a bridge passes on within itself are not meant; a bridge of ours that took a link's place stands
for it. Last in the chain of what is forwarded: neither from nor to a container. Names are quoted, for a link
may be called like a word of nft's; so they stand in the rule, not in a set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from net.backend.base import Member
from net.state import Rule, rule

_FAMILIES = {"4": "ipv4", "6": "ipv6"}
_NAME = re.compile(r"[0-9A-Za-z_.:@+-]{1,15}\Z")


def forwarding(unrouted: Mapping[str, tuple[str, ...]], members: Iterable[Member]) -> tuple[Rule, ...]:
    taken = {m.view.parent: m.traits.bridge for m in members if m.traits.bridge}
    found = list[Rule]()
    for digit, family in _FAMILIES.items():
        closed = {name for name in unrouted.get(digit, ()) if _NAME.match(name)}
        closed |= {bridge for link, bridge in taken.items() if link in closed}
        if len(closed) > 1:
            links = ", ".join(f'"{name}"' for name in sorted(closed))
            itself = ", ".join(f'"{name}" . "{name}"' for name in sorted(closed))
            between = f"iifname {{ {links} }} oifname {{ {links} }} iifname . oifname != {{ {itself} }}"
            new = f"meta nfproto {family} ct state new {between}"
            found.append(rule(f"{new} counter drop", "this host did not route between them before"))
    return tuple(found)
