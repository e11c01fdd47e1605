"""An image from the hosts that have it to others, without a registry: they get it from each other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol
from urllib.parse import quote

from aiohttp import web

from api import fanout
from api.fanin import merge
from api.routes import query as q
from api.routes.route import ControllerCall
from api.streaming import lines
from model.api import ImageInfo
from model.blobs import BlobPeers, CopyImage
from model.codec import encode_json
from model.errors import Ambiguous, InvalidInput
from model.ids import HostId
from model.image import ImageRecord, Progress


async def copy(call: ControllerCall) -> web.StreamResponse:
    """To all at once: those that have a part of it give that on."""
    query = call.query_as(q.Copy)
    return await lines(call.request, await copied(call.port, query.ref, query.host, query.to))


class Fleet(fanout.Fleet, Protocol):
    """As `api.ports.ControllerPort` has it."""

    def peers_for(self, host: HostId, digest: str, sources: Sequence[HostId]) -> BlobPeers: ...


async def copied(port: Fleet, ref: str, source: str = "", to: Sequence[str] = ()) -> AsyncIterator[Progress]:
    """The image as `source` has it (any host, for none) comes to the hosts `to`, or to all."""
    named = [fanout.hosts_for(port, one)[0] for one in to]
    wanted = named or fanout.hosts_for(port, "")
    path = f"/v1/images/{quote(ref, safe='')}"
    outcome = await fanout.each(port, fanout.hosts_for(port, ""), "GET", path, ImageInfo)
    found: dict[str, ImageRecord] = {name: info.image for name, info in outcome.or_raise()}
    having = [one for one in fanout.hosts_for(port, source) if one[1] in found]
    image = chosen(ref, {name: found[name] for _, name in having})
    name = name_of(ref, image)
    digest = image.digests[-1].partition("@")[2] if image.digests else image.id
    there = [host for host, at in wanted if at in found and found[at].id == image.id]
    work = [
        _one(port, host, at, name, digest, [source for source, _ in having])
        for host, at in wanted
        if host not in there
    ]
    return merge([_there(name, [at for h, at in wanted if h in there]), *work])


async def _one(
    port: Fleet, host: HostId, at: str, name: str, digest: str, sources: Sequence[HostId]
) -> AsyncIterator[Progress]:
    answer = port.peers_for(host, digest, sources)
    body = encode_json(CopyImage(ref=name, digest=digest, answer=answer))
    async for line in fanout.told(port, host, at, "/v1/images/copy", body=body):
        yield line


async def _there(name: str, hosts: Sequence[str]) -> AsyncIterator[Progress]:
    for host in hosts:
        yield Progress(status="Already exists", host=host)
        yield Progress(status="done", image=name, host=host)


def chosen(ref: str, found: dict[str, ImageRecord]) -> ImageRecord:
    """The one that all hosts mean. Raises Ambiguous, InvalidInput."""
    if not found:
        raise InvalidInput(f"the host to copy from has no image {ref}")
    if len({image.id for image in found.values()}) > 1:
        where = ", ".join(f"{name}: {image.id[7:19]}" for name, image in sorted(found.items()))
        raise Ambiguous(f"{ref} is not the same image on every host ({where})", hint="Choose one by --from")
    return next(iter(found.values()))


def name_of(ref: str, image: ImageRecord) -> str:
    """What it is to be called there: as it is asked for, or its first name. Raises InvalidInput without
    one."""
    repository = ref.partition("@")[0]
    fitting = [name for name in image.names if name == ref or name.endswith(f"/{repository}")]
    names = [*fitting, *(name for name in image.names if name.rpartition(":")[0].endswith(repository))]
    if found := next(iter([*names, *image.names]), ""):
        return found
    raise InvalidInput(f"image {ref} has no name by which others could know it", hint="flota tag IMAGE NAME")
