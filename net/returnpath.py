"""Answers to clients of published ports leave by the host where their questions came in. Pure.

The entry host changes the destination only, so the member sees the client's own address and answers to it;
that answer must come by the same entry, or nobody translates it back. The member's host recognises the entry
by the sender of the inner frame (its VTEP's MAC), keeps the entry's number in the connection's mark, gives
answers that mark, and routes marked packets by a table whose only route leads to that entry. The mark is
taken off again before the tunnel: it would stay on the outer packet, and lead that into the tunnel too.

Numbers are the controller's (`model.view.NetworkPeer.number`), alike on all hosts and kept, since connections
outlive changes of the fleet. Bits of marks outside `MASK` are others' and left as they are. Invariant: marks,
tables and rules of ours are in the ranges below (docs/networking.md tells them to people).
"""

from __future__ import annotations

from collections.abc import Iterable

from model.spec import Struct
from net.state import PolicyRule, Route

MOST_ENTRIES = 64
"""Rules are looked through one by one."""
MASK, SHIFT = 0x7F000000, 24
FIRST_TABLE, FIRST_PRIORITY = 0xF700, 24700
"""A number is added to each. Of rules the smaller priority is asked first; the main table's is 32766
(ip-rule(8))."""
REPLY_TABLE, REPLY_PRIORITY = FIRST_TABLE, FIRST_PRIORITY
"""Within a container: by these its answers leave."""
ANSWER_PRIORITY = REPLY_PRIORITY + 1
"""Those on networks of the site's, each by a table of its own (`net.naming.answer_table`)."""


class Hop(Struct):
    """How this host reaches an entry: `version` is of the inner packets."""

    number: int
    version: int
    via: str


def mark(number: int) -> int:
    return number << SHIFT


def routes(link: str, hops: Iterable[Hop]) -> frozenset[Route]:
    """By the tunnel device `link`."""
    return frozenset(
        Route(
            destination="::/0" if hop.version == 6 else "0.0.0.0/0",
            link=link,
            via=hop.via,
            table=FIRST_TABLE + hop.number,
        )
        for hop in hops
    )


def rules(hops: Iterable[Hop]) -> frozenset[PolicyRule]:
    return frozenset(
        PolicyRule(
            version=6 if hop.version == 6 else 4,
            mark=mark(hop.number),
            mask=MASK,
            table=FIRST_TABLE + hop.number,
            priority=FIRST_PRIORITY + hop.number,
        )
        for hop in hops
    )
