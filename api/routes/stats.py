"""The route of resource figures on a controller: each host's stream, joined."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
from aiohttp import web

from api.fanin import merge
from api.hostcall import ask, target
from api.ports import ControllerPort
from api.routes import query as q
from api.routes.route import ControllerCall
from api.streaming import lines
from model.api import StatsSample
from model.codec import decode_json
from model.errors import FlotaError
from model.ids import HostId

Samples = list[StatsSample]


async def stats(call: ControllerCall) -> web.StreamResponse:
    """Lines of samples, each of one host; without `stream` one line per host."""
    query = call.query_as(q.Stats)
    wanted: dict[HostId, list[str]] = {}
    for ref in query.ref:
        ident, host = call.port.locate_instance(ref)
        wanted.setdefault(host, []).append(ident)
    names = dict(call.port.ready_hosts())
    hosts = wanted if query.ref else names
    sources = [
        _of_host(
            call.port,
            host,
            names.get(host, host),
            q.Stats(ref=tuple(wanted.get(host, ())), stream=query.stream),
        )
        for host in hosts
    ]
    return await lines(call.request, merge(sources))


async def _of_host(port: ControllerPort, host: HostId, name: str, query: q.Stats) -> AsyncIterator[Samples]:
    path = target("/v1/stats", {"ref": query.ref, "stream": query.stream})
    try:
        async with ask(port, host, "GET", path) as reply:
            async for line in reply.lines():
                samples = decode_json(line, Samples, "a host's figures")
                yield [msgspec.structs.replace(s, host=name) for s in samples]
    except FlotaError:
        if query.ref:
            raise
