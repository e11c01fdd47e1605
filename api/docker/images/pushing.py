"""`POST /images/{name}/push` and `POST /images/{name}/tag`."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from urllib.parse import quote

from aiohttp import web

from api.docker.errors import Refusal
from api.docker.images.listing import every, platform_of, several
from api.docker.images.names import full_repository, has_tag, joined
from api.docker.images.progress import Merged, Message
from api.docker.images.stream import messages
from api.docker.route import Call
from api.fanout import each, hosts_for, progress
from api.hostcall import target
from model.api import ImageInfo
from model.errors import InvalidInput, NotFound
from model.registries import encode_header
from model.spec import Struct

_DIGEST_LINE = re.compile(r"(?P<tag>[^:]+): digest: (?P<digest>sha256:[0-9a-f]{64}) size: (?P<size>\d+)\Z")


class Push(Struct):
    tag: str = ""
    platform: str = ""


class Tag(Struct):
    repo: str = ""
    tag: str = ""


async def push(call: Call) -> web.StreamResponse:
    query = call.query_as(Push)
    if "@" in call.ref():
        raise InvalidInput("cannot push a digest reference")
    return await messages(call.request, _pushed(call, query, platform_of(query.platform)))


async def _pushed(call: Call, query: Push, platform: str) -> AsyncIterator[Message]:
    login = encode_header(call.login())
    for ref in await _refs(call, query.tag):
        try:
            hosts = await several(call, [ref], platform)
        except NotFound as error:
            raise Refusal(404, f"An image does not exist locally with the tag: {ref}") from error
        path = target("/v1/images/push", {"ref": ref, "platform": platform})
        chosen = [(host, name) for host, name in call.port.ready_hosts() if host == hosts[0][0]]
        merged = Merged()
        async for line in progress(call.port, chosen, path, login=login):
            message = merged.take(line)
            if message is None:
                continue
            yield message
            if (match := _DIGEST_LINE.match(line.status)) is not None:
                aux = {"Tag": match["tag"], "Digest": match["digest"], "Size": int(match["size"])}
                yield {"progressDetail": {}, "aux": aux}
        failure = merged.failure()
        if failure is not None:
            raise failure


async def _refs(call: Call, tag: str) -> list[str]:
    """The one that is named; without a tag all tags of the repository that are here."""
    ref = joined(call.ref(), tag)
    if has_tag(ref):
        return [ref]
    repository = full_repository(ref)
    infos = await every(call.port, call.node())
    names = {name for i in infos for name in i.image.names if full_repository(name) == repository}
    if not names:
        raise Refusal(404, f"An image does not exist locally with the tag: {ref}")
    return sorted(names)


async def tag(call: Call) -> web.Response:
    """On every host that has it."""
    query = call.query_as(Tag)
    if not query.repo:
        raise InvalidInput("invalid reference format: the parameter repo is empty")
    if "@" in query.repo or query.tag.startswith("sha256:"):
        raise InvalidInput("refusing to create a tag with a digest reference")
    path = target(f"/v1/images/{quote(call.ref(), safe='')}/tag", {"name": joined(query.repo, query.tag)})
    outcome = await each(call.port, hosts_for(call.port, call.node()), "POST", path, ImageInfo)
    failed = [(name, error) for name, error in outcome.errors if not isinstance(error, NotFound)]
    if failed:
        name, error = failed[0]
        raise type(error)(f"{name}: {error.message}", hint=error.hint)
    if not outcome.replies:
        raise NotFound(f"no such image: {call.ref()}")
    return web.Response(status=201)
