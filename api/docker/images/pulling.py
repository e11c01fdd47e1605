"""`POST /images/create`: an image from its registry on every host, or one made of a tar.

As `flota pull` it goes to all ready hosts, or to the one that the request names.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web

from api.docker.errors import Refusal
from api.docker.hosts import find_image
from api.docker.images.listing import platform_of
from api.docker.images.names import full_repository, has_tag, joined, tag_of
from api.docker.images.progress import Merged, Message
from api.docker.images.stream import messages
from api.docker.route import Call
from api.fanout import Hosts, Upload, hosts_for, progress
from api.hostcall import QueryValue, ask_for, target
from api.routes.images import upload_of
from model.errors import InvalidInput, NotFound
from model.registries import encode_header, familiar
from model.spec import Struct

MOST_TAGS = 1000
"""That are pulled for one request without a tag."""


class Create(Struct):
    fromImage: str = ""
    fromSrc: str = ""
    repo: str = ""
    tag: str = ""
    message: str = ""
    changes: tuple[str, ...] = ()
    platform: str = ""


async def create(call: Call) -> web.StreamResponse:
    query = call.query_as(Create)
    platform = platform_of(query.platform)
    if query.fromImage:
        return await messages(call.request, _pulled(call, query, platform))
    if query.fromSrc not in ("-", ""):
        raise InvalidInput("fromSrc is '-' only: send the tar in the request's body")
    if not query.fromSrc:
        raise InvalidInput("name an image by fromImage, or send a tar by fromSrc=-")
    return await messages(call.request, _imported(call, query, platform))


async def _pulled(call: Call, query: Create, platform: str) -> AsyncIterator[Message]:
    hosts = hosts_for(call.port, call.node())
    login = encode_header(call.login())
    for ref in await _refs(call, query, hosts, login):
        async for message in _one(call, hosts, ref, platform, login):
            yield message


async def _refs(call: Call, query: Create, hosts: Hosts, login: str) -> list[str]:
    """One; without a tag all of the repository's."""
    ref = joined(query.fromImage, query.tag)
    if has_tag(ref):
        return [ref]
    path = target("/v1/registries/tags", {"ref": ref})
    tags = await ask_for(call.port, hosts[0][0], "GET", path, list[str], login=login)
    if not tags:
        raise NotFound(f"no such image: {ref}")
    if len(tags) > MOST_TAGS:
        raise InvalidInput(f"{ref} has {len(tags)} tags; {MOST_TAGS} are pulled at most: name one")
    return [joined(ref, tag) for tag in tags]


async def _one(call: Call, hosts: Hosts, ref: str, platform: str, login: str) -> AsyncIterator[Message]:
    before = await _ids(call, ref, platform)
    path = target("/v1/images/pull", {"ref": ref, "platform": platform})
    merged, held = Merged(), None
    async for line in progress(call.port, hosts, path, login=login):
        message = merged.take(line)
        if message is None:
            continue
        if line.status.startswith("Pulling from "):  # said before the registry was asked
            held = held or _opening(ref, line.status)
            continue
        if held:
            yield held
            held = None
        yield message
    failure = merged.failure()
    if failure is not None and not merged.done:
        raise _in_dockers_words(failure, ref)
    if held:
        yield held
    for digest in await _digests(call, ref, platform):
        yield {"status": f"Digest: {digest}"}
    if failure is not None:
        raise failure
    newer = await _ids(call, ref, platform) != before
    word = "Downloaded newer image for" if newer else "Image is up to date for"
    yield {"status": f"Status: {word} {familiar(ref)}"}


def _opening(ref: str, status: str) -> Message:
    """`Pulling from library/alpine`, and the tag as the line's id."""
    path = full_repository(ref).partition("/")[2]
    return {"status": f"Pulling from {path}", "id": tag_of(ref) or ref.partition("@")[2] or status}


def _in_dockers_words(error: Exception, ref: str) -> Exception:
    if not isinstance(error, NotFound):
        return error
    return Refusal(404, f"manifest for {familiar(ref)} not found: manifest unknown: {error.message}")


async def _ids(call: Call, ref: str, platform: str) -> dict[str, str]:
    """What the reference means now, by host."""
    try:
        return {host: info.image.id for host, info in await find_image(call.port, ref, platform, call.node())}
    except NotFound:
        return {}


async def _digests(call: Call, ref: str, platform: str) -> list[str]:
    """Of the manifest that was pulled."""
    try:
        _, info = (await find_image(call.port, ref, platform, call.node()))[0]
    except NotFound:
        return []
    repository = full_repository(ref)
    found = [d.partition("@")[2] for d in info.image.digests if d.startswith(f"{repository}@")]
    return found[-1:]


async def _imported(call: Call, query: Create, platform: str) -> AsyncIterator[Message]:
    hosts = hosts_for(call.port, call.node())
    wish: dict[str, QueryValue] = {
        "ref": joined(query.repo, query.tag),
        "message": query.message,
        "change": tuple(line for text in query.changes for line in text.split("\n") if line.strip()),
        "platform": platform,
    }
    merged = Merged()
    upload = Upload(call.port, hosts, target("/v1/images/import", wish))
    async for line in upload.run(upload_of(call.request)):
        merged.take(line)
    failure = merged.failure()
    if failure is not None:
        raise failure
    for ident in dict.fromkeys(line.image for line in merged.done):
        yield {"status": ident}
