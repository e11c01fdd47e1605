"""`GET /images/get`, `/images/{name}/get` and `POST /images/load`: images as an archive."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web

from api.docker.images.listing import platform_of, several
from api.docker.images.progress import Merged, Message
from api.docker.images.stream import messages
from api.docker.route import Call
from api.fanout import Upload, hosts_for
from api.hostcall import ask, target
from api.routes.images import upload_of
from api.streaming import TAR, octets
from model.errors import InvalidInput
from model.ids import HostId
from model.registries import familiar
from model.spec import Struct


class Save(Struct):
    names: tuple[str, ...] = ()
    platform: str = ""


class Load(Struct):
    quiet: bool = False
    platform: str = ""


async def save(call: Call) -> web.StreamResponse:
    """Of one host that has them all."""
    query = call.query_as(Save)
    names = [name for text in query.names for name in text.split(",") if name]
    refs = [call.ref()] if "name" in call.path else names
    if not refs:
        raise InvalidInput("no image is named: give names=")
    platform = platform_of(query.platform)
    hosts = await several(call, refs, platform)
    path = target("/v1/images/save", {"ref": tuple(refs), "platform": platform})

    async def pieces() -> AsyncIterator[bytes]:
        async with ask(call.port, HostId(hosts[0][0]), "POST", path) as reply:
            async for chunk in reply.chunks():
                yield chunk

    return await octets(call.request, pieces(), TAR)


async def load(call: Call) -> web.StreamResponse:
    query = call.query_as(Load)
    path = target("/v1/images/load", {"platform": platform_of(query.platform)})
    upload = Upload(call.port, hosts_for(call.port, call.node()), path)
    return await messages(call.request, _loaded(call, upload, quiet=query.quiet), in_stream=True)


async def _loaded(call: Call, upload: Upload, *, quiet: bool) -> AsyncIterator[Message]:
    """On all hosts: the archive is given to each as it comes, and then it is told what was in it."""
    merged = Merged()
    async for line in upload.run(upload_of(call.request)):
        message = merged.take(line)
        if message is not None and not quiet:
            yield message
    for name in dict.fromkeys(line.image for line in merged.done):
        words = "image ID" if name.startswith("sha256:") else "image"
        yield {"stream": f"Loaded {words}: {familiar(name)}\n"}
    failure = merged.failure()
    if failure is not None:
        raise failure
