"""Asking a container's host, and all hosts about an image: the native API behind Docker's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar
from urllib.parse import quote

from aio.together import together
from api.docker.ports import DockerPort
from api.docker.state import State
from api.hostcall import QueryValue, Reply, ask, ask_for, target
from model.api import ImageInfo, InstanceInfo
from model.codec import decode_json
from model.errors import ErrorBody, FlotaError, NotFound, Unavailable
from model.ids import HostId
from model.image import ImageRecord
from model.spec import Struct
from model.streams import ERROR, Unframer

T = TypeVar("T")
LOOK = 3.0
"""Seconds that a host has to say whether it has an image."""


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


class Found(Struct):
    """Where an image is. Hosts that did not answer in time are in neither."""

    have: tuple[tuple[HostId, ImageInfo], ...]
    lack: tuple[HostId, ...]


async def whereabouts(port: DockerPort, ref: str, platform: str = "", host: str = "") -> Found:
    """The image that a reference means, on ready hosts (or on `host` alone). Raises NotFound where nobody has
    it, Unavailable where nobody can say."""
    asked = [ident for ident, name in port.ready_hosts() if host in ("", ident, name)]
    answers = await together(_image_on(port, ident, ref, platform) for ident in asked)
    have = tuple(
        (ident, info) for ident, info in zip(asked, answers, strict=True) if isinstance(info, ImageInfo)
    )
    lack = tuple(ident for ident, info in zip(asked, answers, strict=True) if isinstance(info, NotFound))
    failed = [
        answer for answer in answers if isinstance(answer, FlotaError) and not isinstance(answer, NotFound)
    ]
    if not have and failed and not lack:
        raise failed[0]
    if not have:
        raise NotFound(f"no such image: {tagged(ref)}")
    return Found(have=have, lack=lack)


async def find_image(
    port: DockerPort, ref: str, platform: str = "", host: str = ""
) -> list[tuple[HostId, ImageInfo]]:
    """As `whereabouts`: those that have it, in the order of the hosts."""
    return [*(await whereabouts(port, ref, platform, host)).have]


async def _image_on(port: DockerPort, host: HostId, ref: str, platform: str) -> ImageInfo | FlotaError:
    path = target(f"/v1/images/{quote(ref, safe='')}", {"platform": platform})
    try:
        async with asyncio.timeout(LOOK):
            return await ask_for(port, host, "GET", path, ImageInfo)
    except TimeoutError:
        return Unavailable(f"host {host[:12]} does not answer within {LOOK:g} s")
    except FlotaError as error:
        return error


def tagged(ref: str) -> str:
    """As Docker names an image that it does not have: with the tag that was meant."""
    if "@" in ref or ":" in ref.rpartition("/")[2]:
        return ref
    return f"{ref}:latest"


async def image_of(port: DockerPort, state: State, info: InstanceInfo) -> ImageRecord:
    """What a container was made of; an empty record where its host can't say now. Known images are not asked
    for again: an id is of one content."""
    ident = info.status.image_id
    known = state.images.get(ident)
    if known is not None or not ident:
        return known or ImageRecord(id="")
    path = f"/v1/images/{quote(ident, safe='')}"
    found = await told_by_host(port, info, path, ImageInfo)
    if found is None:
        return ImageRecord(id=ident)
    state.images.put(ident, found.image)
    return found.image


async def told_by_host(port: DockerPort, info: InstanceInfo, path: str, type_: type[T]) -> T | None:
    """What a container's host says to GET; None where it is away, slow, or does not know: what is shown of
    the container then lacks it."""
    host = info.instance.host
    if host is None or all(host != ready for ready, _ in port.ready_hosts()):
        return None
    try:
        async with asyncio.timeout(LOOK):
            return await ask_for(port, host, "GET", path, type_)
    except (FlotaError, TimeoutError):
        return None
