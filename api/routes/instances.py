"""Routes of containers on a controller; what acts inside one is forwarded to its host."""

from __future__ import annotations

from aiohttp import web

from api import proxy
from api.filters import filter_instances
from api.routes import query as q
from api.routes.route import ControllerCall
from model.api import (
    CreateInstance,
    InstanceInfo,
    StopRequest,
    UpdateBandwidth,
    UpdatePorts,
    WaitResult,
)
from model.codec import encode_json
from model.containerfiles import CommitRequest
from model.limits import UpdateLimits
from model.streams import ExecSpec


async def list_(call: ControllerCall) -> list[InstanceInfo]:
    query = call.query_as(q.ListInstances)
    return filter_instances(call.port.list_instances(), query.filter, all_=query.all, limit=query.limit)


async def get(call: ControllerCall) -> InstanceInfo:
    return call.port.get_instance(call.ref())


async def create(call: ControllerCall) -> InstanceInfo:
    return await call.port.create_instance(call.body_as(CreateInstance), call.login())


async def start(call: ControllerCall) -> InstanceInfo:
    return await call.port.start_instance(call.ref(), hold=call.query_as(q.Start).hold)


async def stop(call: ControllerCall) -> InstanceInfo:
    return await call.port.stop_instance(call.ref(), call.body_as(StopRequest))


async def restart(call: ControllerCall) -> InstanceInfo:
    return await call.port.restart_instance(call.ref(), call.body_as(StopRequest))


async def pause(call: ControllerCall) -> InstanceInfo:
    return await call.port.pause_instance(call.ref(), paused=True)


async def unpause(call: ControllerCall) -> InstanceInfo:
    return await call.port.pause_instance(call.ref(), paused=False)


async def rename(call: ControllerCall) -> InstanceInfo:
    return await call.port.rename_instance(call.ref(), call.query_as(q.Rename).name)


async def remove(call: ControllerCall) -> InstanceInfo:
    query = call.query_as(q.RemoveInstance)
    return await call.port.remove_instance(call.ref(), force=query.force, volumes=query.volumes)


async def update_limits(call: ControllerCall) -> InstanceInfo:
    return await call.port.update_limits(call.ref(), call.body_as(UpdateLimits))


async def update_bandwidth(call: ControllerCall) -> InstanceInfo:
    return await call.port.update_bandwidth(call.ref(), call.body_as(UpdateBandwidth))


async def update_ports(call: ControllerCall) -> InstanceInfo:
    return await call.port.update_ports(call.ref(), call.body_as(UpdatePorts))


async def wait(call: ControllerCall) -> WaitResult:
    return await call.port.wait_instance(call.ref(), call.query_as(q.Wait).condition)


async def kill(call: ControllerCall) -> web.StreamResponse:
    return await proxy.to_instance(call, "kill", {"signal": call.query_as(q.Kill).signal})


async def logs(call: ControllerCall) -> web.StreamResponse:
    return await proxy.to_instance(call, "logs", q.logs_parameters(call.query_as(q.Logs)))


async def attach(call: ControllerCall) -> web.StreamResponse:
    query = call.query_as(q.Attach)
    parameters = {"stdin": query.stdin, "logs": query.logs}
    return await proxy.to_instance(
        call, "attach", {**parameters, "attempt": query.attempt} if query.attempt else parameters
    )


async def exec_(call: ControllerCall) -> web.StreamResponse:
    return await proxy.to_instance(call, "exec", {}, encode_json(call.body_as(ExecSpec)))


async def top(call: ControllerCall) -> web.StreamResponse:
    return await proxy.to_instance(call, "top", {})


async def health(call: ControllerCall) -> web.StreamResponse:
    return await proxy.to_instance(call, "health", {})


async def path_stat(call: ControllerCall) -> web.StreamResponse:
    return await proxy.to_instance(call, "stat", {"path": call.query_as(q.AtPath).path})


async def archive(call: ControllerCall) -> web.StreamResponse:
    return await proxy.to_instance(call, "archive", {"path": call.query_as(q.AtPath).path})


async def extract(call: ControllerCall) -> web.StreamResponse:
    query = call.query_as(q.Extract)
    said = {"path": query.path} | ({"replace": "true"} if query.replace else {})
    return await proxy.to_instance(call, "archive", said)


async def export(call: ControllerCall) -> web.StreamResponse:
    return await proxy.to_instance(call, "export", {})


async def changes(call: ControllerCall) -> web.StreamResponse:
    return await proxy.to_instance(call, "changes", {})


async def commit(call: ControllerCall) -> web.StreamResponse:
    return await proxy.to_instance(call, "commit", {}, encode_json(call.body_as(CommitRequest)))
