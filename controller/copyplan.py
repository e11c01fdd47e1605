"""Which hosts keep copies of the registry's content, and what each of them is to do next. Pure.

Invariant: no host drops what the registry has lost or doesn't know yet; a host that is no longer chosen drops
a blob only once as many chosen ones as are wanted have it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from model.registrycopies import MOST, CopyOrders
from model.spec import Struct

PATIENCE = 600.0
"""Seconds that a chosen host may be away before another one gets a copy: it may only be starting again."""
BELIEVED = 86400.0
"""Seconds for which others keep what the registry doesn't hold, for the sake of a host that says it has a
state which isn't here, and doesn't send it."""
SOON, LATER = 2.0, 30.0
"""Seconds until a chosen host, and any other, asks again; a fleet of a thousand asks 33 times a second."""


class Holder(Struct):
    """A host, as it last spoke."""

    id: str
    name: str
    fit: bool
    """A member that is there or may come back, with a disk of its own."""
    heard: float
    """Unix seconds; 0: never."""
    have: frozenset[str] = frozenset()
    lineage: str = ""
    generation: int = 0
    full: bool = False
    """It had no room for a blob lately."""
    claims: float = 0.0
    """Unix seconds, since when it has said in each report that it has a state which is news; 0: not known."""


class Content(Struct):
    """What the registry has, and of which state."""

    lineage: str
    generation: int
    known: Mapping[str, int]
    """Lineages whose content it has, each up to which generation."""
    held: Mapping[str, int]
    """Digest → size."""
    lost: Mapping[str, int] = {}


def chosen(holders: Sequence[Holder], content: Content, number: int, now: float) -> tuple[str, ...]:
    """Ids of the hosts that are to have copies: those that have most of it, so that little is moved,
    and one without room only where there is no other."""

    def rank(holder: Holder) -> tuple[bool, int, str]:
        return (
            holder.full,
            -sum(content.held[digest] for digest in holder.have & content.held.keys()),
            holder.id,
        )

    fit = [holder for holder in holders if holder.fit and now - holder.heard < PATIENCE]
    return tuple(holder.id for holder in sorted(fit, key=rank)[:number])


def orders(host: str, holders: Sequence[Holder], content: Content, number: int, now: float) -> CopyOrders:
    who = {holder.id: holder for holder in holders}
    own, picked = who[host], chosen(holders, content, number, now)
    if news(own, content):
        return CopyOrders(wait=0.0, send_index=True)
    if send := _missed(own, holders, content, now):
        return CopyOrders(wait=0.0, send=send)
    if host in picked:
        lacking = sorted(content.held.keys() - own.have)[:MOST]
        stale = (own.lineage, own.generation) != (content.lineage, content.generation)
        return CopyOrders(
            wait=0.0 if lacking else SOON,
            fetch={digest: content.held[digest] for digest in lacking},
            fetch_index=stale,
            drop=_garbage(own, holders, content, now),
        )
    others = [who[ident] for ident in picked]
    enough = len(others) >= number
    spare = {d for d in own.have & content.held.keys() if enough and all(d in o.have for o in others)}
    drop = (*_garbage(own, holders, content, now), *sorted(spare))[:MOST]
    return CopyOrders(wait=LATER if not drop else 0.0, drop=drop)


def news(holder: Holder, content: Content) -> bool:
    """It has a state that the registry hasn't: one of a lineage that is not known here, or a newer one."""
    return bool(holder.lineage) and holder.generation > content.known.get(holder.lineage, -1)


def whole(holder: Holder, content: Content) -> bool:
    """Nothing would be missing, were the registry's disk lost now."""
    state = (holder.lineage, holder.generation) == (content.lineage, content.generation)
    return state and content.held.keys() <= holder.have


def _missed(own: Holder, holders: Sequence[Holder], content: Content, now: float) -> tuple[str, ...]:
    """What is lost, and of those that are there this is the first to have it. They take turns at being the
    first: one that says it has a blob and never sends it holds up nobody for good."""
    there = [holder for holder in holders if now - holder.heard < LATER * 3]
    having = sorted(holder.id for holder in there if holder.have & content.lost.keys())
    first = having[int(now // PATIENCE) % len(having)] if having else ""
    mine = own.have & content.lost.keys()
    if own.id != first:
        mine -= {d for holder in there if holder.id == first for d in holder.have}
    return tuple(sorted(mine)[:MOST])


def _garbage(own: Holder, holders: Sequence[Holder], content: Content, now: float) -> tuple[str, ...]:
    """Nobody holds it any more; not to be told as long as a state may still come that does."""
    waiting = (holder for holder in holders if news(holder, content))
    if any(not holder.claims or now - holder.claims < BELIEVED for holder in waiting):
        return ()
    return tuple(sorted(own.have - content.held.keys() - content.lost.keys())[:MOST])
