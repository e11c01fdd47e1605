"""How slowly a client may send or read. Pure."""

from __future__ import annotations

from image.registry.server.limits import Limits
from image.registry.server.refusal import Refusal


class Pace:
    """Fed with what has moved; each full window must have seen `slowest` bytes."""

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._since = now
        self._moved = 0

    def fed(self, count: int, now: float) -> None:
        """Raises Refusal (408)."""
        self._moved += count
        if now - self._since < self._limits.window:
            return
        if self._moved < self._limits.slowest:
            raise too_slow(f"{self._moved} bytes in {now - self._since:.0f} s are too few")
        self._since, self._moved = now, 0


def too_slow(why: str) -> Refusal:
    return Refusal("BLOB_UPLOAD_INVALID", why, status=408, hint="What has come is kept: go on from there")
