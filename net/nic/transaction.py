"""One change to one link, whole or not at all: moved and kept, or as it was before.

Invariants: the journal is written before the first change and after the last; what answered before the move
answers after it, or it is taken back within `PATIENCE` seconds.
"""

from __future__ import annotations

import logging
import socket

from msgspec.structs import replace

from net.nic import files, messages, shift
from net.nic.reach import Controller, Gateway, Target, answering
from net.nic.shift import Links
from net.nic.state import FAILED, KEPT, MOVING, RETURNING, Journal, Standing, Wish

log = logging.getLogger("flota.nic")

PATIENCE = 10.0
"""Seconds in which the controllers and gateways that answered before must answer again."""
BEFORE = 1.0
"""Seconds in which they are asked before."""


def move(links: Links, folder: str, wish: Wish, *, patience: float = PATIENCE, asked: float = BEFORE) -> None:
    """`asked` and `patience`: seconds for answers before and after. Raises CommandFailed, OSError when a step
    fails; then `recover` is needed."""
    known = files.read(folder, wish.bridge)
    link = links.seen().get(wish.parent)
    words = "" if link is None else link.words
    why = links.refusal(wish)
    if why:
        files.write(folder, _failed(known, wish, why, words))
        log.warning("%s: %s", wish.network, why)
        return
    before = _standing(links, wish, known)
    if known is not None and known.phase == KEPT and not before.addresses:
        before = known.before  # its bridge was deleted, and all with it
    source = _own_address(before)
    answered = answering(_targets(wish, before), wish.parent, source, asked)
    log.info("%s becomes a port of %s; before, %s", wish.parent, wish.bridge, _told(answered))
    journal = Journal(wish=wish, phase=MOVING, before=before, boot=files.boot_id(), link=words)
    files.write(folder, journal)
    for what, step in shift.forth(links, wish, before):
        log.info("%s", what)
        step()
    silent = answered - answering(answered, wish.bridge, source, patience)
    if silent:
        names = " and ".join(sorted(map(str, silent)))
        why = f"with {wish.parent} as a port, {names} did not answer within {patience:g} s; it was set back"
        _return(links, folder, journal, why)
        return
    files.write(folder, replace(journal, phase=KEPT))
    log.info("%s is a port of %s", wish.parent, wish.bridge)


def give_back(folder: str, bridge: str) -> None:
    """The link is one by itself again, with what stands on the bridge now, and the bridge forgotten."""
    journal = files.read(folder, bridge)
    if journal is None:
        return
    links = Links()
    try:
        known = journal.before
        if journal.phase == KEPT or (journal.phase == FAILED and known.index):
            now = _standing(links, journal.wish, journal)
            before = now if now.addresses else known
            _return(links, folder, replace(journal, before=before), "")
        elif journal.phase != FAILED:
            _return(links, folder, journal, "")
        files.forget(folder, bridge)
    finally:
        links.close()


def recover(folder: str, bridge: str) -> bool:
    """Put right what a process that died left; False when there was nothing to do. Idempotent."""
    journal = files.read(folder, bridge)
    if journal is None or journal.phase in (KEPT, FAILED):
        return False
    links = Links()
    try:
        asked = journal.phase == RETURNING and not journal.why
        why = journal.why or f"the move of {journal.wish.parent} was interrupted; it was set back"
        _return(links, folder, journal, "" if asked else why)
    finally:
        links.close()
    return True


def _return(links: Links, folder: str, journal: Journal, why: str) -> None:
    """`why` empty: nobody needs the bridge any more, and it is forgotten."""
    files.write(folder, replace(journal, phase=RETURNING, why=why))
    for what, step in shift.back(links, journal.wish, journal.before):
        log.info("%s", what)
        step()
    if why:
        log.error("%s", why)
        files.write(folder, replace(journal, phase=FAILED, why=why, before=Standing()))
    else:
        files.forget(folder, journal.wish.bridge)


def _standing(links: Links, wish: Wish, known: Journal | None) -> Standing:
    """What the host has on the link; on the bridge too, if it was moved there. A port's switches are not its
    own, a bridge's name leaves no room for a label's end: those that it had are in the journal."""
    link, bridge = links.standing(wish.parent), links.standing(wish.bridge)
    if known is not None and known.before.index:
        before = shift.merged(link, bridge) if links.alike(wish) else link
        labelled = messages.labelled_as(before.addresses, known.before.addresses)
        return replace(before, addresses=labelled, sysctls=known.before.sysctls)
    if not links.now(wish).is_port:
        return link
    switches = {path.replace(wish.bridge, wish.parent): value for path, value in bridge.sysctls.items()}
    return replace(shift.merged(link, bridge), sysctls=switches)


def _failed(known: Journal | None, wish: Wish, why: str, link: str) -> Journal:
    base = known if known is not None else Journal(wish=wish, phase=FAILED, boot=files.boot_id())
    return replace(base, wish=wish, phase=FAILED, why=why, link=link)


def _targets(wish: Wish, before: Standing) -> list[Target]:
    found: list[Target] = [Gateway(family=f, address=a) for f, a in messages.gateways(before.routes)]
    return [*found, *(Controller(where=where) for where in wish.controllers)]


def _own_address(before: Standing) -> bytes:
    """The first IPv4 one; ARP's questions carry it."""
    four = (dict(messages.attributes(a, 8)) for a in before.addresses if a[0] == socket.AF_INET)
    return next((found[2] for found in four if 2 in found), b"")


def _told(answered: set[Target]) -> str:
    return " and ".join(sorted(map(str, answered))) + " answered" if answered else "nobody to ask answered"
