"""Moments as Docker writes them: RFC 3339 with nanoseconds, and ages in words. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from model.quantity import format_duration

NEVER = "0001-01-01T00:00:00Z"


def moment(seconds: float) -> str:
    """Unix seconds; 0 is never."""
    if not seconds:
        return NEVER
    whole = int(seconds)
    nanos = min(999_999_999, max(0, round((seconds - whole) * 1e9)))
    stamp = datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{stamp}.{nanos:09d}Z"


def nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def ago(seconds: float, now: float) -> str:
    """`5 seconds`, as docker ps says it."""
    age = max(0.0, now - seconds)
    if 60 <= age < 120:
        return "About a minute"
    if 3600 <= age < 7200:
        return "About an hour"
    return format_duration(age)
