"""`POST /build/prune`, and what builds keep as `GET /system/df` shows it."""

from __future__ import annotations

import time
from typing import Any

from msgspec import field

from api.docker.parameters import Filters, check_filters
from api.docker.route import Call
from api.docker.times import moment
from api.fanout import each, hosts_for
from model.buildcache import CacheEntry, CacheFreed, CachePrune, HostCache
from model.codec import encode_json
from model.errors import InvalidInput
from model.quantity import parse_moment
from model.spec import Struct

TYPES = {
    "run": "regular",
    "copy": "regular",
    "workdir": "regular",
    "mount": "exec.cachemount",
    "context": "source.local",
}


class Prune(Struct):
    all: bool = False
    keep_storage: int = 0
    reserved_space: int = 0
    filters: Filters = field(default_factory=dict)


async def prune(call: Call) -> dict[str, Any]:
    query = call.query_as(Prune)
    until = check_filters(query.filters, ("until", "unused-for")).values()
    ages = [time.time() - parse_moment(value, time.time()) for values in until for value in values]
    if any(age < 0 for age in ages):
        raise InvalidInput("invalid filter 'until': it is in the future")
    keep = max(query.keep_storage, query.reserved_space, 0)
    freed = await pruned(call, CachePrune(all=query.all, unused_for=max(ages, default=0.0), keep=keep))
    return {
        "CachesDeleted": [ident for one in freed for ident in one.entries] or None,
        "SpaceReclaimed": sum(one.freed for one in freed),
    }


async def pruned(call: Call, wish: CachePrune) -> list[CacheFreed]:
    """By host."""
    hosts = hosts_for(call.port, call.node())
    outcome = await each(call.port, hosts, "POST", "/v1/builder/prune", CacheFreed, encode_json(wish))
    return [one for _, one in outcome.or_raise()]


async def entries(call: Call) -> list[dict[str, Any]]:
    """Of all hosts that answer."""
    return [_shown(entry, host) for host, entry in await kept(call)]


async def kept(call: Call) -> list[tuple[str, CacheEntry]]:
    """By hosts' names, of all that answer."""
    hosts = hosts_for(call.port, call.node())
    outcome = await each(call.port, hosts, "GET", "/v1/builder/cache", HostCache)
    return [(host, entry) for host, cache in outcome.or_raise() for entry in cache.entries]


def _shown(entry: CacheEntry, host: str) -> dict[str, Any]:
    return {
        "ID": entry.id,
        "Parent": "",
        "Type": TYPES[entry.kind],
        "Description": entry.source,
        "InUse": entry.in_use,
        "Shared": entry.shared,
        "Size": entry.size,
        "CreatedAt": moment(entry.created),
        "LastUsedAt": moment(entry.used) if entry.used else None,
        "UsageCount": 0,
        "Node": host,
    }
