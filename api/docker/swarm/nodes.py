"""Nodes are the fleet's hosts: list, inspect, update, remove."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web
from msgspec import field

from api.docker.errors import Refusal
from api.docker.parameters import Filters, check_filters
from api.docker.route import Call
from api.docker.swarm.body import NodeBody
from api.docker.system import machine
from api.docker.times import moment
from api.filters import label_fits
from model.api import HostInfo, UpdateHost
from model.errors import InvalidInput, StaleRevision, WrongState
from model.spec import Availability, Struct
from model.status import HostState
from model.version import VERSION

_STATES: Mapping[HostState, str] = {
    HostState.READY: "ready",
    HostState.UNKNOWN: "unknown",
    HostState.LOST: "down",
    HostState.JOINING: "disconnected",
}
ROLE = "worker"
"""Of every host: the controller is none of them."""


class List(Struct):
    filters: Filters = field(default_factory=dict)


class Update(Struct):
    version: int | None = None


class Remove(Struct):
    force: bool = False


def described(info: HostInfo) -> dict[str, Any]:
    host, facts = info.host, info.host.facts
    plugins = [("Log", "json-file"), ("Network", "bridge"), ("Network", "overlay"), ("Volume", "local")]
    status: dict[str, Any] = {"State": _STATES[host.state], "Addr": facts.address}
    if info.conditions:
        status["Message"] = "; ".join(info.conditions)
    return {
        "ID": host.id,
        "Version": {"Index": host.revision},
        "CreatedAt": moment(host.joined_at),
        "UpdatedAt": moment(host.joined_at),
        "Spec": {
            "Labels": dict(host.spec.labels),
            "Role": ROLE,
            "Availability": str(host.spec.availability),
        },
        "Description": {
            "Hostname": host.spec.name,
            "Platform": {"Architecture": machine(facts.platform.arch), "OS": facts.platform.os},
            "Resources": {"NanoCPUs": facts.nano_cpus, "MemoryBytes": facts.memory},
            "Engine": {
                "EngineVersion": facts.version or VERSION,
                "Labels": dict(facts.labels),
                "Plugins": [{"Type": kind, "Name": name} for kind, name in plugins],
            },
            "TLSInfo": {},
        },
        "Status": status,
    }


_FILTERS: Mapping[str, Callable[[HostInfo, str], bool]] = {
    "id": lambda i, v: i.host.id.startswith(v),
    "name": lambda i, v: v in i.host.spec.name,
    "label": lambda i, v: label_fits(i.host.facts.labels, v),
    "node.label": lambda i, v: label_fits(i.host.spec.labels, v),
    "role": lambda i, v: v == ROLE,
    "membership": lambda i, v: v == "accepted",
}


async def list_(call: Call) -> list[dict[str, Any]]:
    filters = check_filters(call.query_as(List).filters, tuple(_FILTERS))
    for value in filters.get("role", ()):
        if value not in ("worker", "manager"):
            raise InvalidInput(f"invalid filter 'role={value[:40]}'")
    for value in filters.get("membership", ()):
        if value not in ("accepted", "pending"):
            raise InvalidInput(f"invalid filter 'membership={value[:40]}'")
    return [described(info) for info in call.port.list_hosts() if _fits(info, filters)]


def _fits(info: HostInfo, filters: Filters) -> bool:
    return all(
        not values or (all if "label" in key else any)(_FILTERS[key](info, value) for value in values)
        for key, values in filters.items()
    )


async def inspect(call: Call) -> dict[str, Any]:
    return described(call.port.get_host(call.ref()))


async def update(call: Call) -> web.Response:
    body, version = call.body_as(NodeBody), call.query_as(Update).version
    if version is None:
        raise InvalidInput("invalid node version '': write the Version.Index that was read")
    info = call.port.get_host(call.ref())
    name = info.host.spec.name
    if body.name not in ("", name):
        raise InvalidInput(f"Name: a host's name does not change; this one's is {name}")
    if body.role not in ("", ROLE):
        raise InvalidInput(
            "Role: every node is a worker, as the controller is none of them",
            hint="It moves to another machine by a backup: flota restore",
        )
    gone = tuple(key for key in info.host.spec.labels if key not in body.labels)
    request = UpdateHost(
        availability=_availability(body.availability),
        labels_set=body.labels,
        labels_remove=gone,
        revision=version,
    )
    try:
        await call.port.update_host(info.host.id, request)
    except StaleRevision as error:
        raise out_of_sequence() from error
    return web.Response()


def out_of_sequence() -> Refusal:
    """Docker's words, by which clients tell that they must read again."""
    return Refusal(409, "rpc error: code = Unknown desc = update out of sequence")


def _availability(text: str) -> Availability | None:
    if not text:
        return None
    try:
        return Availability(text.lower())
    except ValueError:
        raise InvalidInput(f"invalid Availability: {text[:40]!r}", hint="active, pause or drain") from None


async def remove(call: Call) -> web.Response:
    info = call.port.get_host(call.ref())
    try:
        await call.port.remove_host(info.host.id, force=call.query_as(Remove).force)
    except WrongState as error:
        words = f"node {info.host.id} is not down and can't be removed"
        raise Refusal(400, f"rpc error: code = FailedPrecondition desc = {words}: {error}") from error
    return web.Response()
