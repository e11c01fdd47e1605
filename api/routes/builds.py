"""Routes of builds: on a host one connection is one build; a controller chooses the host and forwards it."""

from __future__ import annotations

import msgspec
from aiohttp import web

from api import fanout, proxy
from api.hijack import Taken, require, take_over
from api.routes.images import joined
from api.routes.query import OnHost
from api.routes.route import ControllerCall, HostCall
from model.build import PROTOCOL, BuildPlace
from model.buildcache import CacheFreed, CachePrune, HostCache
from model.codec import encode_json
from model.errors import WrongState


async def build(call: ControllerCall) -> web.StreamResponse:
    require(call.request, PROTOCOL)
    return await proxy.build_on(call, call.query_as(BuildPlace))


async def build_here(call: HostCall) -> web.StreamResponse:
    require(call.request, PROTOCOL)
    name, wanted = call.port.facts().hostname, call.query_as(BuildPlace).host
    if wanted not in ("", name):
        raise WrongState(
            f"this is {name}, and speaks for itself alone", hint="Ask the controller to build elsewhere"
        )
    try:
        connection = take_over(call.request, PROTOCOL)
    except OSError:
        return Taken()
    try:
        await call.port.build(connection.reader, connection.writer)
    finally:
        connection.writer.close()
    return Taken()


async def cache(call: ControllerCall) -> web.StreamResponse:
    hosts = fanout.hosts_for(call.port, call.query_as(OnHost).host)
    outcome = await fanout.each(call.port, hosts, "GET", "/v1/builder/cache", HostCache)
    return joined([msgspec.structs.replace(one, host=n) for n, one in outcome.or_raise()], outcome)


async def prune(call: ControllerCall) -> web.StreamResponse:
    hosts = fanout.hosts_for(call.port, call.query_as(OnHost).host)
    body = encode_json(call.body_as(CachePrune))
    outcome = await fanout.each(call.port, hosts, "POST", "/v1/builder/prune", CacheFreed, body)
    return joined([msgspec.structs.replace(one, host=n) for n, one in outcome.or_raise()], outcome)


async def cache_here(call: HostCall) -> HostCache:
    return await call.port.build_cache()


async def prune_here(call: HostCall) -> CacheFreed:
    return await call.port.prune_builds(call.body_as(CachePrune))
