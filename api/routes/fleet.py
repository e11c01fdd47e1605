"""Routes of hosts, tokens, joining, events and the fleet itself."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web

from api.filters import EVENT_FILTERS, event_fits, parse_filters
from api.routes import query as q
from api.routes.route import CA, ControllerCall
from api.streaming import lines
from model.api import (
    CreateToken,
    FleetInfo,
    HostAway,
    HostInfo,
    JoinReply,
    JoinRequest,
    TokenCreated,
    UpdateHost,
    UpdateSettings,
    Why,
)
from model.events import Event
from model.records import FleetSettings


async def list_hosts(call: ControllerCall) -> list[HostInfo]:
    return list(call.port.list_hosts())


async def get_host(call: ControllerCall) -> HostInfo:
    return call.port.get_host(call.ref())


async def update_host(call: ControllerCall) -> HostInfo:
    return await call.port.update_host(call.ref(), call.body_as(UpdateHost))


async def expect_away(call: ControllerCall) -> None:
    await call.port.expect_away(call.ref(), call.body_as(HostAway))


async def remove_host(call: ControllerCall) -> None:
    await call.port.remove_host(call.ref(), force=call.query_as(q.Force).force)


async def create_token(call: ControllerCall) -> TokenCreated:
    return await call.port.create_token(call.body_as(CreateToken))


async def ca(call: ControllerCall) -> web.Response:
    """PEM; a joining host compares it with the digest in its token."""
    return web.Response(text=call.request.app[CA], content_type="application/x-pem-file")


async def join(call: ControllerCall) -> JoinReply:
    return await call.port.join(call.body_as(JoinRequest))


async def info(call: ControllerCall) -> FleetInfo:
    return call.port.info()


async def get_settings(call: ControllerCall) -> FleetSettings:
    return call.port.get_settings()


async def update_settings(call: ControllerCall) -> FleetSettings:
    return await call.port.update_settings(call.body_as(UpdateSettings))


async def version(call: ControllerCall) -> dict[str, str]:
    info = call.port.info()
    return {"version": info.version, "api": "v1", "release": info.release}


async def why(call: ControllerCall) -> Why:
    return call.port.why(call.ref())


async def events(call: ControllerCall) -> web.StreamResponse:
    query = call.query_as(q.Events)
    filters = parse_filters(query.filter, tuple(EVENT_FILTERS))

    async def fitting() -> AsyncIterator[Event]:
        async for event in call.port.events(query.since, query.until):
            if event_fits(event, filters):
                yield event

    return await lines(call.request, fitting())
