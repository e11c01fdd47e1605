"""Quantities as people write them: bytes, cpus, durations, ports. Pure.

Every parser returns a plain number in the base unit (bytes, nano-cpus, seconds) or raises InvalidInput
with the offending text; every printer is its inverse up to rounding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from model.errors import InvalidInput

_BYTES = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)\s*([kmgtp]?)(i?b?)\Z", re.IGNORECASE)
_SCALE = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_RATE = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)\s*([kmg]?)(?:bit)?\Z")
_THOUSANDS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_CPUS = re.compile(r"\d{1,6}(?:\.\d{1,9})?\Z")
_DURATION_PART = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)(ns|us|µs|ms|s|m|h|d)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
MAX_BYTES = (1 << 63) - 1
BOOLS: Mapping[str, bool] = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}
"""Docker's words, which are those of Go's `strconv.ParseBool`."""
NANO = 1_000_000_000
_LEAST_UNIX = 1e8
"""Of unix seconds: in 1973."""


def parse_bool(text: str, field: str) -> bool:
    """One of `BOOLS`; any other word is refused: taken for false it would leave out a protection unseen."""
    if text not in BOOLS:
        hint = "Write true or false (or t, f, 1, 0)"
        raise InvalidInput(f"{field[:80]}: {text[:40]!r} is neither true nor false", hint=hint)
    return BOOLS[text]


def parse_bytes(text: str) -> int:
    """`64m`, `1.5GiB`, `4096` → bytes. Suffixes are powers of 1024, as in Docker."""
    match = _BYTES.match(text.strip())
    if not match:
        raise InvalidInput(f"invalid size {text[:40]!r}", hint="Write for example 64m, 1.5g or 4096")
    value = round(float(match[1]) * _SCALE[match[2].lower()])
    if value > MAX_BYTES:
        raise InvalidInput(f"size {text[:40]!r} is larger than {MAX_BYTES} bytes")
    return value


def exact_bytes(count: int) -> str:
    """The shortest of the ways to say it that `parse_bytes` reads back as the same: `1m`, `1536k`, `4097`."""
    for unit in "tgmk":
        if count and count % _SCALE[unit] == 0:
            return f"{count // _SCALE[unit]}{unit}"
    return str(count)


def format_bytes(count: float) -> str:
    """Bytes for people, in powers of 1024: `0B`, `1.5KiB`, `294MiB`."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            return f"{value:.0f}{unit}" if unit == "B" or value >= 100 else f"{value:.4g}{unit}"
        value /= 1024
    raise AssertionError("unreachable")


def format_size(count: float) -> str:
    """Bytes for people, in powers of 1000, as `docker images` prints sizes: `1.24kB`, `294MB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(value) < 1000 or unit == "TB":
            return f"{value:.3g}{unit}"
        value /= 1000
    raise AssertionError("unreachable")


def parse_rate(text: str) -> int:
    """`100mbit`, `1.5gbit`, `512k` → bits a second. Suffixes are powers of 1000, as in tc(8)."""
    match = _RATE.match(text.strip().lower())
    if not match:
        raise InvalidInput(f"invalid bandwidth {text[:40]!r}", hint="Write for example 100mbit, 1.5gbit or 0")
    return round(float(match[1]) * _THOUSANDS[match[2]])


def format_rate(bits: int) -> str:
    """Bits a second for people: `100mbit`."""
    for unit in ("g", "m", "k"):
        if bits >= _THOUSANDS[unit]:
            return f"{bits / _THOUSANDS[unit]:.4g}{unit}bit"
    return f"{bits}bit"


def parse_cpus(text: str) -> int:
    """`0.5` → 500_000_000 nano-cpus."""
    if not _CPUS.match(text.strip()):
        raise InvalidInput(f"invalid number of cpus {text[:40]!r}", hint="Write for example 0.5 or 2")
    nano = round(float(text) * NANO)
    if nano == 0 and float(text) != 0:
        raise InvalidInput(f"{text!r} cpus is too little", hint="The smallest share is 0.001")
    return nano


def parse_duration(text: str) -> float:
    """`90`, `1m30s`, `500ms` → seconds. A bare number is seconds."""
    stripped = text.strip()
    if re.match(r"\d{1,12}(?:\.\d{1,9})?\Z", stripped):
        return float(stripped)
    position, total = 0, 0.0
    while match := _DURATION_PART.match(stripped, position):
        total += float(match[1]) * _SECONDS[match[2]]
        position = match.end()
    if position == 0 or position != len(stripped):
        raise InvalidInput(f"invalid duration {text[:40]!r}", hint="Write for example 500ms, 10s or 1m30s")
    return total


def parse_moment(text: str, now: float) -> float:
    """RFC 3339 (local where no zone is written), unix seconds, or a duration before `now` → unix seconds. A
    bare number too small to be a time of ours is a duration in seconds."""
    from datetime import datetime

    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError):
        seconds = parse_duration(text)
    bare = text.strip().replace(".", "", 1).isdecimal()
    return seconds if bare and seconds > _LEAST_UNIX else now - seconds


def format_duration(seconds: float) -> str:
    """Seconds for people, one unit, as docker prints ages: `5 seconds`, `3 hours`."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    for limit, size, word in (
        (60, 1, "second"),
        (3600, 60, "minute"),
        (48 * 3600, 3600, "hour"),
        (14 * 86400, 86400, "day"),
        (60 * 86400, 7 * 86400, "week"),
        (2 * 365 * 86400, 30 * 86400, "month"),
    ):
        if whole < limit:
            count = whole // size
            return f"{count} {word}{'' if count == 1 else 's'}"
    return f"{whole // (365 * 86400)} years"
