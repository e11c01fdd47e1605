"""Routes of images on a controller: lists joined over the fleet, work done on every ready host or on one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import quote

import msgspec
from aiohttp import web

from api import fanout
from api.filters import filter_images
from api.hostcall import QueryValue, target
from api.routes import query as q
from api.routes.route import ControllerCall
from api.streaming import lines
from model.api import ImageInfo, ImageRemoved
from model.codec import encode_json
from model.errors import NotFound


async def list_(call: ControllerCall) -> web.StreamResponse:
    query = call.query_as(q.ListImages)
    hosts = fanout.hosts_for(call.port, query.host)
    outcome = await fanout.each(call.port, hosts, "GET", "/v1/images", list[ImageInfo])
    found = [msgspec.structs.replace(i, host=n) for n, infos in outcome.or_raise() for i in infos]
    return joined(filter_images(found, query.filter), outcome)


def joined(value: object, outcome: fanout.Outcome) -> web.StreamResponse:
    """A joined reply, with a header that names the hosts that are missing in it."""
    headers = fanout.per_host(outcome)
    return web.Response(body=encode_json(value), content_type="application/json", headers=headers)


async def get(call: ControllerCall) -> list[ImageInfo]:
    hosts = fanout.hosts_for(call.port, call.query_as(q.OnHost).host)
    outcome = await fanout.each(call.port, hosts, "GET", f"/v1/images/{_ref(call)}", ImageInfo)
    return [msgspec.structs.replace(info, host=name) for name, info in outcome.or_raise()]


async def pull(call: ControllerCall) -> web.StreamResponse:
    query = call.query_as(q.Pull)
    hosts = fanout.hosts_for(call.port, query.host)
    path = target("/v1/images/pull", {"ref": query.ref, "platform": query.platform})
    return await lines(call.request, fanout.progress(call.port, hosts, path))


async def load(call: ControllerCall) -> web.StreamResponse:
    hosts = fanout.hosts_for(call.port, call.query_as(q.OnHost).host)
    return await _upload(call, hosts, "/v1/images/load")


async def import_(call: ControllerCall) -> web.StreamResponse:
    query = call.query_as(q.Import)
    hosts = fanout.hosts_for(call.port, query.host)
    parameters: dict[str, QueryValue] = {
        "ref": query.ref,
        "message": query.message,
        "change": query.change,
    }
    return await _upload(call, hosts, target("/v1/images/import", parameters))


async def _upload(call: ControllerCall, hosts: fanout.Hosts, path: str) -> web.StreamResponse:
    upload = fanout.Upload(call.port, hosts, path)
    return await lines(call.request, upload.run(upload_of(call.request)))


async def upload_of(request: web.Request) -> AsyncIterator[bytes]:
    """A request's body as it arrives."""
    async for chunk in request.content.iter_chunked(fanout.UPLOAD_CHUNK):
        yield chunk


async def tag(call: ControllerCall) -> list[ImageInfo]:
    query = call.query_as(q.Tag)
    hosts = fanout.hosts_for(call.port, query.host)
    path = target(f"/v1/images/{_ref(call)}/tag", {"name": query.name})
    outcome = await fanout.each(call.port, hosts, "POST", path, ImageInfo)
    return [msgspec.structs.replace(info, host=name) for name, info in outcome.or_raise()]


async def remove(call: ControllerCall) -> list[ImageRemoved]:
    query = call.query_as(q.RemoveImage)
    hosts = fanout.hosts_for(call.port, query.host)
    path = target(f"/v1/images/{_ref(call)}", {"force": query.force})
    outcome = await fanout.each(call.port, hosts, "DELETE", path, ImageRemoved)
    refused = [(n, e) for n, e in outcome.errors if not isinstance(e, NotFound)]
    if refused:
        name, error = refused[0]
        raise type(error)(f"{name}: {error.message}", hint=error.hint)
    return [msgspec.structs.replace(removed, host=name) for name, removed in outcome.or_raise()]


async def prune(call: ControllerCall) -> list[ImageRemoved]:
    query = call.query_as(q.Prune)
    hosts = fanout.hosts_for(call.port, query.host)
    path = target("/v1/images/prune", {"all": query.all})
    outcome = await fanout.each(call.port, hosts, "POST", path, ImageRemoved)
    return [msgspec.structs.replace(removed, host=name) for name, removed in outcome.or_raise()]


def _ref(call: ControllerCall) -> str:
    return quote(call.ref(), safe="")
