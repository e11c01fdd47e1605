"""Which entries of a build cache go. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from model.buildcache import CacheEntry, CacheKeeping, CachePrune


def pruned(entries: Sequence[CacheEntry], wish: CachePrune, now: float) -> tuple[str, ...]:
    """Ids, the longest unused first. What a build uses stays."""
    fitting = [
        entry
        for entry in entries
        if not entry.in_use
        and (wish.all or not entry.shared)
        and (not wish.unused_for or entry.used <= now - wish.unused_for)
    ]
    fitting.sort(key=lambda entry: entry.used)
    if not wish.keep:
        return tuple(entry.id for entry in fitting)
    return _down_to(fitting, sum(entry.size for entry in entries), wish.keep)


def outgrown(
    entries: Sequence[CacheEntry], keeping: CacheKeeping, now: float, lacking: int = 0
) -> tuple[str, ...]:
    """Ids of what a host takes away by itself; `lacking`: bytes that its disk has too few of."""
    free = sorted((entry for entry in entries if not entry.in_use), key=lambda entry: entry.used)
    old = [entry for entry in free if keeping.max_age and entry.used < now - keeping.max_age]
    gone = {entry.id for entry in old}
    total = sum(entry.size for entry in entries if entry.id not in gone)
    rest = [entry for entry in free if entry.id not in gone]
    large = _down_to(rest, total, keeping.max_size) if keeping.max_size else ()
    gone |= set(large)
    short = lacking - sum(entry.size for entry in entries if entry.id in gone and not entry.shared)
    more = enough([entry for entry in rest if entry.id not in gone], short) if short > 0 else ()
    return (*(entry.id for entry in old), *large, *more)


def enough(entries: Sequence[CacheEntry], need: int) -> tuple[str, ...]:
    """Ids of the longest unused that free so many bytes, or of all that free any."""
    free = sorted(
        (entry for entry in entries if not entry.in_use and not entry.shared), key=lambda entry: entry.used
    )
    total = sum(entry.size for entry in free)
    return _down_to(free, total, total - need) if need < total else tuple(entry.id for entry in free)


def _down_to(entries: Collection[CacheEntry], total: int, most: int) -> tuple[str, ...]:
    gone: list[str] = []
    for entry in entries:
        if total <= most:
            break
        gone.append(entry.id)
        total -= entry.size
    return tuple(gone)
