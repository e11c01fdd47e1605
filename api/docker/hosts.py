"""Asking a container's host, and all hosts about an image: the native API behind Docker's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar
from urllib.parse import quote

from api.docker.ports import DockerPort
from api.docker.state import State
from api.fanout import each
from api.hostcall import QueryValue, Reply, ask, ask_for, target
from model.api import ImageInfo, InstanceInfo
from model.codec import decode_json
from model.errors import ErrorBody, FlotaError, NotFound
from model.ids import HostId
from model.image import ImageRecord
from model.streams import ERROR, Unframer

T = TypeVar("T")


def instance_path(ident: str, action: str, query: Mapping[str, QueryValue] | None = None) -> str:
    return target(f"/v1/instances/{quote(ident, safe='')}/{action}", query)


@asynccontextmanager
async def asking(
    port: DockerPort,
    ref: str,
    method: str,
    action: str,
    query: Mapping[str, QueryValue] | None = None,
    body: bytes = b"",
) -> AsyncIterator[Reply]:
    """One request about a container to its host. Raises what the host says, NotFound, Unavailable."""
    ident, host = port.locate_instance(ref)
    async with ask(port, host, method, instance_path(ident, action, query), body) as reply:
        yield reply


async def answer(port: DockerPort, ref: str, action: str, type_: type[T], **query: QueryValue) -> T:
    """GET whose reply is a `type_`."""
    ident, host = port.locate_instance(ref)
    return await ask_for(port, host, "GET", instance_path(ident, action, query), type_)


async def frames(reply: Reply) -> AsyncIterator[tuple[int, bytes]]:
    """(type, payload) of a reply in frames. Raises the error that a frame carries."""
    unframer = Unframer()
    async for chunk in reply.chunks():
        for kind, payload in unframer.feed(chunk):
            if kind == ERROR:
                raise decode_json(payload, ErrorBody, "a host's error").to_error()
            yield kind, payload


async def find_image(
    port: DockerPort, ref: str, platform: str = "", host: str = ""
) -> list[tuple[HostId, ImageInfo]]:
    """The image that a reference means, on each ready host that has it (or on `host` alone), in their order.
    Raises NotFound."""
    asked = [(ident, name) for ident, name in port.ready_hosts() if host in ("", ident, name)]
    path = target(f"/v1/images/{quote(ref, safe='')}", {"platform": platform})
    outcome = await each(port, asked, "GET", path, ImageInfo)
    idents = {name: ident for ident, name in asked}
    found = [(idents[name], info) for name, info in outcome.replies]
    if not found:
        others = [error for _, error in outcome.errors if not isinstance(error, NotFound)]
        if others:
            raise others[0]
        raise NotFound(f"no such image: {tagged(ref)}")
    return found


def tagged(ref: str) -> str:
    """As Docker names an image that it does not have: with the tag that was meant."""
    if "@" in ref or ":" in ref.rpartition("/")[2]:
        return ref
    return f"{ref}:latest"


async def image_of(port: DockerPort, state: State, info: InstanceInfo) -> ImageRecord:
    """What a container was made of; an empty record where its host can't say. Known images are not asked for
    again: an id is of one content."""
    ident = info.status.image_id
    if not ident or info.instance.host is None:
        return ImageRecord(id=ident)
    known = state.images.get(ident)
    if known is not None:
        return known
    try:
        path = f"/v1/images/{quote(ident, safe='')}"
        found = (await ask_for(port, info.instance.host, "GET", path, ImageInfo)).image
    except FlotaError:  # its host is away, or the image has gone: the container is shown without its words
        return ImageRecord(id=ident)
    state.images.put(ident, found)
    return found
