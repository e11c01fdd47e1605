"""Routes of images on a controller: lists joined over the fleet, work done on every ready host or on one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import quote

import msgspec
from aiohttp import web

from api import fanout
from api.hostcall import QueryValue, ask, ask_for, target
from api.imagefilters import filter_found, filter_images, image_chooser
from api.routes import query as q
from api.routes.query import percent
from api.routes.route import ControllerCall
from api.streaming import TAR, lines, octets
from model.api import (
    FoundImage,
    ImageInfo,
    ImageRemoved,
)
from model.codec import encode_json
from model.disk import HostDisk
from model.errors import Ambiguous, InvalidInput, NotFound
from model.ids import HostId
from model.registries import encode_header
from model.remoteimages import PushedIndex, PushIndex, RemoteImage

COPIES_WITHIN = 600.0
"""Seconds in which a host copies what an index names into its repository."""


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
    query = call.query_as(q.OfPlatform)
    hosts = fanout.hosts_for(call.port, query.host)
    path = target(f"/v1/images/{_ref(call)}", {"platform": query.platform})
    outcome = await fanout.each(call.port, hosts, "GET", path, ImageInfo)
    return [msgspec.structs.replace(info, host=name) for name, info in outcome.or_raise()]


async def pull(call: ControllerCall) -> web.StreamResponse:
    query = call.query_as(q.Pull)
    hosts = fanout.hosts_for(call.port, query.host)
    path = target("/v1/images/pull", {"ref": query.ref, "platform": query.platform, "all": query.all})
    return await lines(call.request, fanout.progress(call.port, hosts, path, login=_login(call)))


async def push(call: ControllerCall) -> web.StreamResponse:
    """From one host that has it: every other one's would be the same."""
    query = call.query_as(q.Push)
    login = _login(call)
    hosts = await _holding(call, query.ref, query.host, query.platform)
    wish: dict[str, QueryValue] = {"platform": query.platform, "referrers": query.referrers}
    path = target("/v1/images/push", {"ref": query.ref, **wish})
    return await lines(call.request, fanout.progress(call.port, hosts[:1], path, login=login))


async def push_index(call: ControllerCall) -> PushedIndex:
    """By one host: what the index names is in registries."""
    query = call.query_as(q.PushIndex)
    login = _login(call)
    host = fanout.hosts_for(call.port, query.host)[0][0]
    path = target("/v1/manifests", {"ref": query.ref})
    body = encode_json(call.body_as(PushIndex))
    return await ask_for(
        call.port, host, "POST", path, PushedIndex, login=login, send=body, within=COPIES_WITHIN
    )


async def save(call: ControllerCall) -> web.StreamResponse:
    """From one host that has them all."""
    query = call.query_as(q.Save)
    if not query.ref:
        raise InvalidInput("no image is named")
    hosts = await _holding(call, query.ref[0], query.host, query.platform)
    for ref in query.ref[1:]:
        more = dict(await _holding(call, ref, query.host, query.platform))
        hosts = [(host, name) for host, name in hosts if host in more]
    if not hosts:
        raise NotFound("no host has all these images", hint="Pull them on one host, or save them one by one")
    path = target("/v1/images/save", {"ref": query.ref, "platform": query.platform})

    async def pieces() -> AsyncIterator[bytes]:
        async with ask(call.port, hosts[0][0], "POST", path) as reply:
            async for chunk in reply.chunks():
                yield chunk

    return await octets(call.request, pieces(), TAR)


async def distribution(call: ControllerCall) -> RemoteImage:
    """Asked by one host: any would do."""
    query = call.query_as(q.Distribution)
    login = _login(call)
    host = fanout.hosts_for(call.port, query.host)[0][0]
    path = target("/v1/distribution", {"ref": query.ref, "config": query.config, "near": query.near})
    return await ask_for(call.port, host, "GET", path, RemoteImage, login=login)


async def check_login(call: ControllerCall) -> None:
    query = call.query_as(q.Registry)
    login = _login(call)
    host = fanout.hosts_for(call.port, query.host)[0][0]
    path = target("/v1/registries/check", {"registry": query.registry})
    async with ask(call.port, host, "POST", path, login=login) as reply:
        await reply.body()


async def tags(call: ControllerCall) -> list[str]:
    query = call.query_as(q.Distribution)
    login = _login(call)
    host = fanout.hosts_for(call.port, query.host)[0][0]
    path = target("/v1/registries/tags", {"ref": query.ref})
    return await ask_for(call.port, host, "GET", path, list[str], login=login)


async def search(call: ControllerCall) -> list[FoundImage]:
    query = call.query_as(q.Search)
    login = _login(call)
    host = fanout.hosts_for(call.port, query.host)[0][0]
    filter_found((), query.filter)  # a fault in them is told before anybody is asked
    path = target("/v1/search", {"term": query.term, "limit": query.limit})
    found = await ask_for(call.port, host, "GET", path, list[FoundImage], login=login)
    return filter_found(found, query.filter)


async def _holding(call: ControllerCall, ref: str, host: str, platform: str = "") -> list[tuple[HostId, str]]:
    """Ready hosts that have the image. Raises NotFound, and Ambiguous where a name means several images."""
    hosts = fanout.hosts_for(call.port, host)
    path = target(f"/v1/images/{quote(ref, safe='')}", {"platform": platform})
    outcome = await fanout.each(call.port, hosts, "GET", path, ImageInfo)
    found = {name: info.image.id for name, info in outcome.or_raise()}
    if len(set(found.values())) > 1:
        where = ", ".join(f"{name}: {ident[7:19]}" for name, ident in sorted(found.items()))
        raise Ambiguous(f"{ref} is not the same image on every host ({where})", hint="Choose one by --node")
    return [(ident, name) for ident, name in hosts if name in found]


def _login(call: ControllerCall) -> str:
    """The header as it goes on to a host. Raises InvalidInput when it holds no login."""
    return encode_header(call.login())


async def load(call: ControllerCall) -> web.StreamResponse:
    query = call.query_as(q.OfPlatform)
    hosts = fanout.hosts_for(call.port, query.host)
    return await _upload(call, hosts, target("/v1/images/load", {"platform": query.platform}))


async def import_(call: ControllerCall) -> web.StreamResponse:
    query = call.query_as(q.Import)
    hosts = fanout.hosts_for(call.port, query.host)
    parameters: dict[str, QueryValue] = {
        "ref": query.ref,
        "message": query.message,
        "change": query.change,
        "platform": query.platform,
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
    path = target(f"/v1/images/{_ref(call)}", {"force": query.force, "platform": query.platform})
    outcome = await fanout.each(call.port, hosts, "DELETE", path, ImageRemoved)
    refused = [(n, e) for n, e in outcome.errors if not isinstance(e, NotFound)]
    if refused:
        name, error = refused[0]
        raise type(error)(f"{name}: {error.message}", hint=error.hint)
    return [msgspec.structs.replace(removed, host=name) for name, removed in outcome.or_raise()]


async def prune(call: ControllerCall) -> web.StreamResponse:
    query = call.query_as(q.PruneImages)
    image_chooser(query.filter)  # refused here, once
    hosts = fanout.hosts_for(call.port, query.host)
    return await _removed(call, hosts, target("/v1/images/prune", {"all": query.all, "filter": query.filter}))


async def make_room(call: ControllerCall) -> web.StreamResponse:
    query = call.query_as(q.MakeRoom)
    hosts = fanout.hosts_for(call.port, query.host)
    return await _removed(call, hosts, target("/v1/images/gc", {"to": percent(query.to)}))


async def _removed(call: ControllerCall, hosts: fanout.Hosts, path: str) -> web.StreamResponse:
    outcome = await fanout.each(call.port, hosts, "POST", path, ImageRemoved)
    found = [msgspec.structs.replace(removed, host=name) for name, removed in outcome.or_raise()]
    return joined(found, outcome)


async def disk_use(call: ControllerCall) -> web.StreamResponse:
    hosts = fanout.hosts_for(call.port, call.query_as(q.OnHost).host)
    outcome = await fanout.each(call.port, hosts, "GET", "/v1/disk", HostDisk)
    found = [msgspec.structs.replace(disk, host=name) for name, disk in outcome.or_raise()]
    return joined(found, outcome)


def _ref(call: ControllerCall) -> str:
    return quote(call.ref(), safe="")
