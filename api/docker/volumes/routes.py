"""Volumes: list, inspect, make, remove, prune, on every host of the fleet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from aiohttp import web
from msgspec import field
from msgspec.structs import replace

from api import fanout
from api.docker.containers.creating import created
from api.docker.containers.placing import NODE
from api.docker.errors import Refusal
from api.docker.parameters import Filters
from api.docker.route import Call
from api.docker.versions import Version
from api.docker.volumes.body import VolumeBody
from api.docker.volumes.fleet import DRIVER, Volume, chosen, described, joined, prunable
from api.hostcall import ask, target
from model.api import CreateVolume, VolumeInfo
from model.codec import decode_json, encode_json
from model.errors import FlotaError, InUse, NotFound
from model.spec import Struct, VolumeSpec

PATH = "/v1/volumes"
ANONYMOUS_ONLY: Version = (1, 42)
"""From here on a prune takes volumes without a name only, unless it is told `all`."""


class List(Struct):
    filters: Filters = field(default_factory=dict)


class Remove(Struct):
    force: bool = False


async def list_(call: Call) -> dict[str, Any]:
    outcome = await _everywhere(call)
    found = chosen(joined(_named(outcome)), call.query_as(List).filters)
    warnings = [f"{name}: {error.message}" for name, error in outcome.errors]
    return {"Volumes": [described(volume) for volume in found], "Warnings": warnings or None}


async def inspect(call: Call) -> dict[str, Any]:
    return described(await _one(call, call.ref()))


async def create(call: Call) -> web.Response:
    """Under a name on each host, since nobody knows where it will be wanted, or on the one that is named by
    a label or header. Without a name on one host."""
    body = call.body_as(VolumeBody)
    if body.driver not in ("", DRIVER):
        words = f'create {body.name}: error looking up volume plugin {body.driver[:80]}: plugin "'
        raise Refusal(404, f'{words}{body.driver[:80]}" not found')
    hosts = fanout.hosts_for(call.port, body.labels.get(NODE, "") or call.node())
    made = []
    for host, name in hosts if body.name else hosts[:1]:
        request = CreateVolume(spec=VolumeSpec(name=body.name, labels=body.labels))
        async with ask(call.port, host, "POST", PATH, encode_json(request)) as reply:
            info = decode_json(await reply.body(), VolumeInfo, "a host's reply")
        made.append(replace(info, host=name))
    return created(described(joined(made)[0]))


async def remove(call: Call) -> None:
    force = call.query_as(Remove).force
    try:
        volume = await _one(call, call.ref())
    except NotFound:
        if force:
            return
        raise
    if volume.used_by:
        raise _in_use(volume.name, volume.used_by)
    for _, error in (await _gone(call, volume, force)).errors:
        if isinstance(error, InUse):
            raise Refusal(409, f"remove {volume.name}: volume is in use: {error.message}")
        if not isinstance(error, NotFound):
            raise error


def _in_use(name: str, users: Sequence[str]) -> Refusal:
    return Refusal(409, f"remove {name}: volume is in use - [{', '.join(users)}]")


async def prune(call: Call) -> dict[str, Any]:
    """What is freed is not known: hosts delete in their own time."""
    outcome = await _everywhere(call)
    outcome.or_raise()
    filters = call.query_as(List).filters
    gone = []
    for volume in prunable(joined(_named(outcome)), filters, named=call.version < ANONYMOUS_ONLY):
        if not (await _gone(call, volume, force=False)).errors:
            gone.append(volume.name)
    return {"VolumesDeleted": gone, "SpaceReclaimed": 0}


async def _everywhere(call: Call) -> fanout.Outcome:
    node = call.node()
    hosts = fanout.hosts_for(call.port, node) if node else call.port.ready_hosts()
    return await fanout.each(call.port, hosts, "GET", PATH, list[VolumeInfo])


def _named(outcome: fanout.Outcome) -> list[VolumeInfo]:
    return [replace(info, host=name) for name, infos in outcome.or_raise() for info in infos]


async def _one(call: Call, name: str) -> Volume:
    """Raises NotFound; what a host says that could not be asked, where none has it."""
    hosts = fanout.hosts_for(call.port, call.node())
    outcome = await fanout.each(call.port, hosts, "GET", _path(name), VolumeInfo)
    if not outcome.replies:
        others: list[FlotaError] = [e for _, e in outcome.errors if not isinstance(e, NotFound)]
        raise others[0] if others else NotFound(f"no such volume: {name}")
    parts = tuple(replace(info, host=host) for host, info in outcome.replies)
    return Volume(name=name, parts=parts)


async def _gone(call: Call, volume: Volume, force: bool) -> fanout.Outcome:
    """From each host that has it."""
    having = {part.host for part in volume.parts}
    hosts = [(ident, name) for ident, name in call.port.ready_hosts() if name in having]
    path = target(_path(volume.name), {"force": force})
    return await fanout.each(call.port, hosts, "DELETE", path, dict[str, str])


def _path(name: str) -> str:
    return f"{PATH}/{quote(name, safe='')}"
