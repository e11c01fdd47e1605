"""Services and their tasks: flota's own objects, made and changed in Docker's words."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web
from msgspec import field
from msgspec.structs import replace

from api.docker.bodies import convert
from api.docker.containers.creating import created
from api.docker.errors import Refusal
from api.docker.networks.spec import MODES
from api.docker.networks.spec import described as network_described
from api.docker.parameters import Filters, check_filters
from api.docker.ports import DockerPort
from api.docker.route import Call
from api.docker.swarm import tasks
from api.docker.swarm.body import ServiceBody
from api.docker.swarm.description import described, spec_words
from api.docker.swarm.logs import find_task
from api.docker.swarm.merging import merged
from api.docker.swarm.nodes import out_of_sequence
from api.docker.swarm.spec import spec_of
from api.filters import label_fits
from model.api import ServiceInfo, UpdateService
from model.errors import AlreadyExists, FlotaError, InvalidInput, NotFound, StaleRevision, WrongState
from model.registries import Login
from model.spec import Replicated, ServiceSpec, Struct

NAME_FREE = 60.0
"""Seconds that a new service waits for the name of one that is being removed."""
LOOK_AGAIN = 0.05


class List(Struct):
    filters: Filters = field(default_factory=dict)
    status: bool = False


class Inspect(Struct):
    insertDefaults: bool = False


class Update(Struct):
    version: int | None = None
    rollback: str = ""
    registryAuthFrom: str = ""


_FILTERS: Mapping[str, Callable[[ServiceInfo, str], bool]] = {
    "id": lambda i, v: i.service.id.startswith(v),
    "name": lambda i, v: i.service.spec.name.startswith(v),
    "label": lambda i, v: label_fits(i.service.spec.labels, v),
    "mode": lambda i, v: v == ("replicated" if isinstance(i.service.spec.mode, Replicated) else "global"),
    "runtime": lambda i, v: v == "container",
}


async def list_(call: Call) -> list[dict[str, Any]]:
    query = call.query_as(List)
    filters = check_filters(query.filters, tuple(_FILTERS))
    ids = network_ids(call.port)
    return [
        described(info, ids, status=query.status, defaults=False)
        for info in call.port.list_services()
        if not info.service.removed and _fits(info, filters)
    ]


def _fits(info: ServiceInfo, filters: Filters) -> bool:
    return all(
        not values or (all if key == "label" else any)(_FILTERS[key](info, value) for value in values)
        for key, values in filters.items()
    )


async def inspect(call: Call) -> dict[str, Any]:
    defaults = call.query_as(Inspect).insertDefaults
    return described(_living(call), network_ids(call.port), defaults=defaults)


def _living(call: Call) -> ServiceInfo:
    """Raises NotFound: one that is being removed is none any more to Docker's clients."""
    info = call.port.get_service(call.ref())
    if info.service.removed:
        raise NotFound(f"no such service: {call.ref()}")
    return info


def network_ids(port: DockerPort) -> dict[str, str]:
    """By name and by id."""
    networks = [info.network for info in port.list_networks()]
    found: dict[str, str] = {n.spec.name: n.id for n in networks}
    return found | {n.id: n.id for n in networks}


def _named(port: DockerPort, ref: str) -> str:
    return ref if ref in MODES else port.get_network(ref).network.spec.name


async def create(call: Call) -> web.Response:
    body = call.body_as(ServiceBody)
    spec = spec_of(body, lambda ref: _named(call.port, ref))
    if not spec.name:
        spec = replace(spec, name=f"service-{secrets.token_hex(4)}")
    try:
        info = await _created(call.port, spec, call.login())
    except InvalidInput as error:
        raise _in_dockers_words(error) from error
    return created({"ID": info.service.id, "Warnings": list(info.warnings) or None})


async def _created(port: DockerPort, spec: ServiceSpec, login: Login) -> ServiceInfo:
    """A service of that name that is on its way out is waited for: Docker's is gone at once. Raises
    Refusal."""
    end = asyncio.get_running_loop().time() + NAME_FREE
    while True:
        try:
            return await port.create_service(spec, login)
        except AlreadyExists as error:
            leaving = _leaving(port, spec.name)
            if leaving is None or asyncio.get_running_loop().time() > end:
                raise _taken(port, spec.name, error) from error
        for info in leaving.instances:
            await _removed(port, info.instance.id, end)
        await asyncio.sleep(LOOK_AGAIN)


def _leaving(port: DockerPort, name: str) -> ServiceInfo | None:
    found = (info for info in port.list_services() if info.service.spec.name == name)
    return next((info for info in found if info.service.removed), None)


async def _removed(port: DockerPort, ident: str, end: float) -> None:
    try:
        async with asyncio.timeout_at(end):
            await port.wait_instance(ident, "removed")
    except (NotFound, TimeoutError):
        return


def _taken(port: DockerPort, name: str, error: AlreadyExists) -> Exception:
    """Docker's words, where it is the name that is taken."""
    if all(info.service.spec.name != name for info in port.list_services()):
        return error
    words = "rpc error: code = AlreadyExists desc = name conflicts with an existing object: service"
    return Refusal(409, f"{words} {name} already exists")


async def update(call: Call) -> web.Response:
    """By what was read at `version`. What Docker has no words for stays as it is."""
    query, body = call.query_as(Update), call.body_as(ServiceBody)
    if query.version is None or query.version <= 0:
        raise InvalidInput("invalid service version: write the Version.Index that was read")
    service = _living(call).service
    try:
        if query.rollback:
            info = await _rolled_back(call.port, service.id, query)
        else:
            spec = _changed(call.port, service.spec, body)
            request = UpdateService(spec=spec, revision=query.version)
            info = await call.port.update_service(service.id, request, call.login())
    except StaleRevision as error:
        raise out_of_sequence() from error
    except InvalidInput as error:
        raise _in_dockers_words(error) from error
    return web.json_response({"Warnings": list(info.warnings) or None})


async def _rolled_back(port: DockerPort, ident: str, query: Update) -> ServiceInfo:
    if query.rollback != "previous":
        raise InvalidInput(f"unrecognized rollback option {query.rollback[:40]}")
    assert query.version is not None
    try:
        return await port.rollback_service(ident, query.version)
    except WrongState as error:
        words = "rpc error: code = FailedPrecondition desc = service"
        raise Refusal(400, f"{words} {ident} does not have a previous spec: {error}") from error


def _changed(port: DockerPort, stored: ServiceSpec, body: ServiceBody) -> ServiceSpec:
    def named(ref: str) -> str:
        return _named(port, ref)

    was = spec_of(convert(spec_words(stored, network_ids(port)), ServiceBody), named)
    wanted = spec_of(body, named)
    return merged(stored, was, wanted if body.name else replace(wanted, name=stored.name))


async def remove(call: Call) -> web.Response:
    await call.port.remove_service(_living(call).service.id)
    return web.Response()


async def list_tasks(call: Call) -> list[dict[str, Any]]:
    found = tasks.chosen(tasks.tasks_of(call.port.list_services()), call.query_as(List).filters)
    ids, networks = network_ids(call.port), _networks(call.port)
    return [tasks.described(task, ids, networks) for task in found]


async def inspect_task(call: Call) -> dict[str, Any]:
    return tasks.described(find_task(call.port, call.ref()), network_ids(call.port), _networks(call.port))


def _networks(port: DockerPort) -> dict[str, Any]:
    return {info.network.id: network_described(info.network) for info in port.list_networks()}


_FIELDS: Mapping[str, str] = {
    "spec.name": "Name",
    "spec.labels": "Labels",
    "spec.mode.replicas": "Mode.Replicated.Replicas",
    "spec.placement.constraints": "TaskTemplate.Placement.Constraints",
    "spec.placement.max_per_host": "TaskTemplate.Placement.MaxReplicas",
    "spec.placement.reservations.memory": "TaskTemplate.Resources.Reservations.MemoryBytes",
    "spec.placement.reservations.nano_cpus": "TaskTemplate.Resources.Reservations.NanoCPUs",
    "spec.update.order": "UpdateConfig.Order",
    "spec.update.parallelism": "UpdateConfig.Parallelism",
    "spec.update.delay": "UpdateConfig.Delay",
    "spec.update.monitor": "UpdateConfig.Monitor",
    "spec.update.max_failure_ratio": "UpdateConfig.MaxFailureRatio",
    "spec.rollback.order": "RollbackConfig.Order",
    "spec.rollback.failure_action": "RollbackConfig.FailureAction",
    "spec.rollback.parallelism": "RollbackConfig.Parallelism",
    "spec.container.image": "TaskTemplate.ContainerSpec.Image",
    "spec.container.env": "TaskTemplate.ContainerSpec.Env",
    "spec.container.workdir": "TaskTemplate.ContainerSpec.Dir",
    "spec.container.user": "TaskTemplate.ContainerSpec.User",
    "spec.container.hostname": "TaskTemplate.ContainerSpec.Hostname",
    "spec.container.labels": "TaskTemplate.ContainerSpec.Labels",
    "spec.container.mounts": "TaskTemplate.ContainerSpec.Mounts",
    "spec.container.stop_grace": "TaskTemplate.ContainerSpec.StopGracePeriod",
    "spec.container.stop_signal": "TaskTemplate.ContainerSpec.StopSignal",
    "spec.container.health": "TaskTemplate.ContainerSpec.Healthcheck",
    "spec.container.dns": "TaskTemplate.ContainerSpec.DNSConfig",
    "spec.container.extra_hosts": "TaskTemplate.ContainerSpec.Hosts",
    "spec.container.sysctls": "TaskTemplate.ContainerSpec.Sysctls",
    "spec.container.cap_add": "TaskTemplate.ContainerSpec.CapabilityAdd",
    "spec.container.cap_drop": "TaskTemplate.ContainerSpec.CapabilityDrop",
    "spec.container.ulimits": "TaskTemplate.ContainerSpec.Ulimits",
    "spec.container.ports": "EndpointSpec.Ports",
    "spec.container.networks": "TaskTemplate.Networks",
    "spec.container.restart": "TaskTemplate.RestartPolicy",
    "spec.container.log": "TaskTemplate.LogDriver",
    "spec.container.resources.memory": "TaskTemplate.Resources.Limits.MemoryBytes",
    "spec.container.resources.nano_cpus": "TaskTemplate.Resources.Limits.NanoCPUs",
    "spec.container.resources.pids": "TaskTemplate.Resources.Limits.Pids",
}


def _in_dockers_words(error: InvalidInput) -> FlotaError:
    """With problems told by Docker's fields."""
    lines = "; ".join(f"{_field(problem.path)}: {problem.message}" for problem in error.problems)
    return InvalidInput(lines or error.message, hint=error.hint)


def _field(path: str) -> str:
    for ours in sorted(_FIELDS, reverse=True):
        if path.startswith(ours):
            return _FIELDS[ours] + path[len(ours) :]
    return path
