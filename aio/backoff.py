"""Delays between attempts. Pure: the caller brings its own randomness."""

from __future__ import annotations


def delay(attempt: int, *, first: float = 0.1, limit: float = 30.0, factor: float = 2.0) -> float:
    """Seconds before attempt number `attempt` (1 is the first retry), without jitter."""
    if attempt <= 0:
        return 0.0
    exponent = min(attempt - 1, 64)
    return float(min(limit, first * factor**exponent))


def jittered(seconds: float, unit: float) -> float:
    """Spread `seconds` over 75–125 %, by `unit` in [0, 1)."""
    return seconds * (0.75 + 0.5 * unit)
