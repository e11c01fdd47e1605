"""Routes of builds: on a host one connection is one build; a controller chooses the host and forwards it."""

from __future__ import annotations

from aiohttp import web

from api import proxy
from api.hijack import Taken, require, take_over
from api.routes.route import ControllerCall, HostCall
from model.build import PROTOCOL, BuildPlace
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
