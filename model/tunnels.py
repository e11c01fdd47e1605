"""The ends of encrypted networks' tunnels, and how their keys are changed without losing a packet. Pure.

Generations of keys are numbered from 1. Every host that carries the network makes a key of its own for each
generation from `oldest` to `newest`; the private half never leaves it. A change goes in three steps, each
once all of them have said that they did the one before: all have the next generation and know each other's,
all send by it, the one before goes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable

from model.spec import Struct


class TunnelEnd(Struct):
    """A host's end, of one generation."""

    generation: int
    key: str
    """Public, of Curve25519 in base64."""
    port: int
    """UDP port where it listens."""


class KeyPhase(Struct):
    """Which generations hosts have, and by which they send. All the same but while keys are changed."""

    oldest: int = 1
    sending: int = 1
    newest: int = 1


class TunnelReport(Struct):
    """What a host says of an encrypted network."""

    ends: tuple[TunnelEnd, ...] = ()
    met: str = ""
    """`keys_digest` of those peers' keys of the newest generation that it has in force."""
    sends: int = 0
    """Generation by which it sends."""


KEY_BYTES = 32


def end_fault(end: TunnelEnd) -> str:
    """Why nobody can send there, "" when one can. A key is one only as WireGuard writes it itself: two texts
    of one key would pass for two hosts'."""
    try:
        raw = base64.b64decode(end.key, validate=True)
    except ValueError:  # binascii.Error too
        raw = b""
    if len(raw) != KEY_BYTES or base64.b64encode(raw).decode() != end.key:
        return f"{end.key[:60]!r} is no key"
    return "" if 1 <= end.port <= 65535 else f"{end.port} is no port"


def end_of(ends: Iterable[TunnelEnd], generation: int) -> TunnelEnd | None:
    return next((end for end in ends if end.generation == generation), None)


def keys_digest(generation: int, keys: Iterable[str]) -> str:
    """Short for a set of keys of one generation."""
    words = "\n".join((str(generation), *sorted(keys)))
    return hashlib.sha256(words.encode()).hexdigest()[:32]
