"""Which piece a peer is asked for next. Pure.

Invariant: a piece is asked of one peer at a time, and of none that does not say that it has it.

Pieces are taken near the blob's start, so that it can be read while it comes, the rarest first. One that a
single peer has is left for a moment to the host whose turn it is by a hash of both, from which all others get
it then: so the one that has all gives each piece about once, however many hosts there are, and every host
gives about as much as it gets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache

from image.peers.chunks import members
from model.ids import HostId

WINDOW = 32
"""Pieces, beginning with the first that is missing."""


def choose(
    missing: int,
    asked: int,
    offers: Mapping[HostId, int],
    peer: HostId,
    own: HostId,
    overdue: int = 0,
) -> int | None:
    """`missing`, `asked` and `overdue` are sets of pieces: not here, on their way, waited for long enough;
    `offers` is what each peer has. None: there is nothing to ask this peer for now."""
    have = offers[peer] & ~asked
    wanted = [piece for piece in members(missing, WINDOW) if have >> piece & 1]
    copies = {piece: sum(offer >> piece & 1 for offer in offers.values()) for piece in wanted}
    others = [host for host in offers if host != peer]
    ours = [n for n in wanted if copies[n] > 1 or overdue >> n & 1 or in_turn(n, own, others)]
    return min(ours, key=lambda n: (copies[n], _rank(n, own)), default=None)


def in_turn(piece: int, own: HostId, others: Iterable[HostId]) -> bool:
    """Whether this host is the one that gets it for the others."""
    mine = _rank(piece, own)
    return all(_rank(piece, host) < mine for host in others)


@lru_cache(1 << 16)
def _rank(piece: int, host: HostId) -> bytes:
    return hashlib.blake2b(f"{piece}/{host}".encode(), digest_size=8).digest()
