"""Routes of services."""

from __future__ import annotations

from aiohttp import web

from api.routes import query as q
from api.routes.route import ControllerCall
from api.servicelogs import merged
from api.streaming import frames
from model.api import ServiceInfo, UpdateService
from model.spec import ServiceSpec


async def list_(call: ControllerCall) -> list[ServiceInfo]:
    return list(call.port.list_services())


async def get(call: ControllerCall) -> ServiceInfo:
    return call.port.get_service(call.ref())


async def create(call: ControllerCall) -> ServiceInfo:
    return await call.port.create_service(call.body_as(ServiceSpec))


async def update(call: ControllerCall) -> ServiceInfo:
    return await call.port.update_service(call.ref(), call.body_as(UpdateService))


async def rollback(call: ControllerCall) -> ServiceInfo:
    return await call.port.rollback_service(call.ref())


async def scale(call: ControllerCall) -> ServiceInfo:
    return await call.port.scale_service(call.ref(), call.query_as(q.Scale).replicas)


async def remove(call: ControllerCall) -> None:
    await call.port.remove_service(call.ref())


async def logs(call: ControllerCall) -> web.StreamResponse:
    info = call.port.get_service(call.ref())
    return await frames(call.request, merged(call.port, info.instances, call.query_as(q.ServiceLogs)))
