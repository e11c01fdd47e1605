"""What is written down of a link that was moved into a bridge: one value, one file per bridge. Pure.

Invariant: from the first change to a link until it is given back, the file says what stood on it, so that
whoever comes next can put it back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from model.codec import decode_json, encode_json
from model.spec import Struct

FOLDER = "nic"
"""Below the agent's run folder."""
MOVING: Final = "moving"
KEPT: Final = "kept"
RETURNING: Final = "returning"
FAILED: Final = "failed"
Phase = Literal["moving", "kept", "returning", "failed"]


class Wish(Struct):
    """A link to be made a port of a bridge that is there."""

    network: str
    """Its name, for people."""
    parent: str
    bridge: str
    mtu: int
    controllers: tuple[str, ...] = ()
    """HOST:PORT; those that can be reached before must be reachable after."""


class Standing(Struct):
    """What a host has on a link: payloads of route messages as the kernel dumped them."""

    index: int = 0
    """Of the link that the messages name."""
    addresses: tuple[bytes, ...] = ()
    routes: tuple[bytes, ...] = ()
    others: tuple[bytes, ...] = ()
    """Routes by other links that name one of the addresses as their source, with which they go."""
    neighbours: tuple[bytes, ...] = ()
    """Permanent ones."""
    sysctls: Mapping[str, str] = {}
    """Of the link, that are changed while it is a port; by path below /proc/sys."""
    at: float = 0.0
    """When that was, in seconds since the boot: lifetimes count from there."""


class Journal(Struct):
    wish: Wish
    phase: Phase
    before: Standing = Standing()
    """To be put back on the link."""
    boot: str = ""
    why: str = ""
    """Of a move that was taken back; of a return, why it is one (empty: it was asked for)."""
    link: str = ""
    """What the link was when the move failed: another is worth another try."""


def encode(journal: Journal) -> bytes:
    return encode_json(journal)


def decode(data: bytes) -> Journal:
    """Raises InvalidInput."""
    return decode_json(data, Journal, "the journal of a moved link")
