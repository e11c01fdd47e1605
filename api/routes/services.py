"""Routes of services."""

from __future__ import annotations

from aiohttp import web
from msgspec.structs import replace

from api.pinning import pinned
from api.routes import query as q
from api.routes.route import ControllerCall
from api.servicelogs import merged
from api.streaming import frames
from model.api import ServiceInfo, UpdateService
from model.registries import NOBODY
from model.spec import ServiceSpec


async def list_(call: ControllerCall) -> list[ServiceInfo]:
    return list(call.port.list_services())


async def get(call: ControllerCall) -> ServiceInfo:
    return call.port.get_service(call.ref())


async def create(call: ControllerCall) -> ServiceInfo:
    spec, login = call.body_as(ServiceSpec), call.login()
    warnings: tuple[str, ...] = ()
    if call.query_as(q.Resolve).resolve:
        image, warnings = await pinned(call.port, spec.container.image, login)
        spec = replace(spec, container=replace(spec.container, image=image))
    made = await call.port.create_service(spec, login if call.query_as(q.Resolve).keep_login else NOBODY)
    return replace(made, warnings=warnings)


async def update(call: ControllerCall) -> ServiceInfo:
    request, login = call.body_as(UpdateService), call.login()
    warnings: tuple[str, ...] = ()
    if call.query_as(q.Resolve).resolve:
        image, warnings = await pinned(call.port, request.spec.container.image, login)
        spec = replace(request.spec, container=replace(request.spec.container, image=image))
        request = replace(request, spec=spec)
    kept = login if call.query_as(q.Resolve).keep_login else NOBODY
    return replace(await call.port.update_service(call.ref(), request, kept), warnings=warnings)


async def rollback(call: ControllerCall) -> ServiceInfo:
    return await call.port.rollback_service(call.ref())


async def scale(call: ControllerCall) -> ServiceInfo:
    return await call.port.scale_service(call.ref(), call.query_as(q.Scale).replicas)


async def remove(call: ControllerCall) -> None:
    await call.port.remove_service(call.ref())


async def logs(call: ControllerCall) -> web.StreamResponse:
    info = call.port.get_service(call.ref())
    return await frames(call.request, merged(call.port, info.instances, call.query_as(q.ServiceLogs)))
