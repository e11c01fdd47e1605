"""BuildKit's DiskUsage and Prune over what the fleet's builds keep.

Source: buildkit, api/services/control. Invariant: a filter that is not done here is refused, so that nothing
is removed that was to stay.
"""

from __future__ import annotations

from collections.abc import Sequence

from api.docker.buildkit.control import DiskUsage, PruneRequest, Usage
from api.docker.buildkit.messages import Timestamp
from api.docker.builds.cache import TYPES, kept, pruned
from api.docker.route import Call
from model.buildcache import CacheEntry, CachePrune
from model.errors import InvalidInput, Unsupported

NANOSECONDS = 1_000_000_000


async def disk_usage(call: Call, filters: Sequence[str]) -> DiskUsage:
    """Of all hosts that answer. Raises Unsupported."""
    _unfiltered(filters)
    return DiskUsage(records=tuple(record(entry, host) for host, entry in await kept(call)))


async def prune(call: Call, asked: PruneRequest) -> tuple[Usage, ...]:
    """What went, its sizes summed by host. Raises Unsupported, InvalidInput."""
    freed = await pruned(call, wish_of(asked))
    found: list[Usage] = []
    for host in freed:
        sizes = (host.freed, *(0 for _ in host.entries[1:]))
        found += [Usage(id=ident, size=size) for ident, size in zip(host.entries, sizes, strict=False)]
    return tuple(found)


def wish_of(asked: PruneRequest) -> CachePrune:
    _unfiltered(asked.filters)
    if asked.free:
        raise Unsupported("a prune until so much of the disk is free", hint="Say how much may stay")
    if min(asked.unused, asked.reserved, asked.most) < 0:
        raise InvalidInput("a prune by less than nothing")
    return CachePrune(
        all=asked.all, unused_for=asked.unused / NANOSECONDS, keep=max(asked.most, asked.reserved)
    )


def record(entry: CacheEntry, host: str) -> Usage:
    return Usage(
        id=entry.id,
        mutable=entry.kind == "mount",
        in_use=entry.in_use,
        size=entry.size,
        created=Timestamp.at(entry.created),
        used=Timestamp.at(entry.used) if entry.used else None,
        description=f"{entry.source} ({host})" if entry.source else host,
        type=TYPES[entry.kind],
        shared=entry.shared,
    )


def _unfiltered(filters: Sequence[str]) -> None:
    for one in filters:
        raise Unsupported(f"the filter {one[:60]!r} of the build cache is not known here")
