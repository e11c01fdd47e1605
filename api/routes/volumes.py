"""Routes of volumes on a controller: each host has its own; lists are joined and name the host."""

from __future__ import annotations

from urllib.parse import quote

import msgspec
from aiohttp import web

from api import fanout
from api.filters import filter_volumes
from api.hostcall import ask, target
from api.routes import query as q
from api.routes.images import joined
from api.routes.route import ControllerCall
from model.api import CreateVolume, VolumeInfo
from model.codec import decode_json, encode_json
from model.errors import NotFound

Freed = dict[str, dict[str, int]]
"""Host name → volume name → bytes."""


async def list_(call: ControllerCall) -> web.StreamResponse:
    query = call.query_as(q.ListVolumes)
    hosts = fanout.hosts_for(call.port, query.host)
    outcome = await fanout.each(call.port, hosts, "GET", "/v1/volumes", list[VolumeInfo])
    found = [msgspec.structs.replace(v, host=n) for n, infos in outcome.or_raise() for v in infos]
    return joined(filter_volumes(found, query.filter), outcome)


async def get(call: ControllerCall) -> list[VolumeInfo]:
    hosts = fanout.hosts_for(call.port, call.query_as(q.OnHost).host)
    outcome = await fanout.each(call.port, hosts, "GET", _path(call), VolumeInfo)
    return [msgspec.structs.replace(info, host=name) for name, info in outcome.or_raise()]


async def create(call: ControllerCall) -> list[VolumeInfo]:
    """On one host, or under the same name on every ready one; a host that refuses ends it."""
    hosts = fanout.hosts_for(call.port, call.query_as(q.OnHost).host)
    made = []
    for host, name in hosts:
        body = encode_json(call.body_as(CreateVolume))
        async with ask(call.port, host, "POST", "/v1/volumes", body) as reply:
            info = decode_json(await reply.body(), VolumeInfo, "a host's reply")
        made.append(msgspec.structs.replace(info, host=name))
    return made


async def remove(call: ControllerCall) -> None:
    """From every host that has it."""
    query = call.query_as(q.RemoveVolume)
    hosts = fanout.hosts_for(call.port, query.host)
    path = target(_path(call), {"force": query.force})
    outcome = await fanout.each(call.port, hosts, "DELETE", path, dict[str, str])
    outcome.or_raise()
    for name, error in outcome.errors:
        if not isinstance(error, NotFound):
            raise type(error)(f"{name}: {error.message}", hint=error.hint)


async def prune(call: ControllerCall) -> Freed:
    query = call.query_as(q.Prune)
    hosts = fanout.hosts_for(call.port, query.host)
    path = target("/v1/volumes/prune", {"all": query.all})
    outcome = await fanout.each(call.port, hosts, "POST", path, dict[str, int])
    return dict(outcome.or_raise())


def _path(call: ControllerCall) -> str:
    return f"/v1/volumes/{quote(call.ref(), safe='')}"
