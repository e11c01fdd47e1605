"""One image for all hosts: a service's tag is resolved once, to the digest that every host then runs.

Invariant: an image that only hosts have (loaded, imported, committed, or by a name that its registry does not
know) is left as it is; so is one whose registry can't be asked, which is said.
"""

from __future__ import annotations

import asyncio
from urllib.parse import quote

from api import fanout
from api.hostcall import ask_for, target
from api.ports import ControllerPort
from model.api import ImageInfo
from model.errors import FlotaError, Unavailable
from model.registries import DEFAULT_HOST, Login, encode_header, split_host
from model.remoteimages import RemoteImage

WITHIN = 10.0
"""Seconds for the registry."""
ASKED = 3
"""Hosts that are asked, one after the other, until one reaches it."""


async def pinned(port: ControllerPort, image: str, login: Login) -> tuple[str, tuple[str, ...]]:
    """The image with its digest, or as it was; and what is to be said of that."""
    if "@" in image:
        return image, ()
    hosts = port.ready_hosts()
    path = f"/v1/images/{quote(image, safe='')}"
    here = await fanout.each(port, hosts, "GET", path, ImageInfo)
    if here.replies and all(_local(info, image) for _, info in here.replies):
        return image, ()
    try:
        async with asyncio.timeout(WITHIN):
            found = await _asked(port, hosts[:ASKED], image, encode_header(login))
    except (FlotaError, TimeoutError) as error:
        return image, (_unpinned(image, error),)
    return f"{_tagged(image)}@{found.digest}", ()


async def _asked(port: ControllerPort, hosts: fanout.Hosts, image: str, login: str) -> RemoteImage:
    """By the first host that reaches the registry. Raises what the last of them says."""
    question = target("/v1/distribution", {"ref": image})
    failure: FlotaError = Unavailable("no host is ready")
    for host, _ in hosts:
        try:
            return await ask_for(port, host, "GET", question, RemoteImage, login=login)
        except Unavailable as error:
            failure = error
    raise failure


def _local(info: ImageInfo, image: str) -> bool:
    """Its name's registry is not known to have it (another's may, under another name: who has the same name
    there is a stranger), or it is named by its id, which is one image everywhere."""
    known = {pinned.partition("@")[0] for pinned in info.image.digests}
    return _repository(image) not in known or info.image.id.removeprefix("sha256:").startswith(image)


def _repository(image: str) -> str:
    """In full, as records of images have it."""
    head, slash, last = image.rpartition("/")
    host, path = split_host(f"{head}{slash}{last.partition(':')[0]}")
    inner = "library/" if host == DEFAULT_HOST and "/" not in path else ""
    return f"{host}/{inner}{path}"


def _tagged(image: str) -> str:
    return image if ":" in image.rpartition("/")[2] else f"{image}:latest"


def _unpinned(image: str, error: Exception) -> str:
    why = error.message if isinstance(error, FlotaError) else "nobody answered in time"
    return (
        f"image {image} could not be accessed on a registry to record its digest ({why}); each node will"
        " access it independently, possibly leading to different nodes running different versions of it"
    )
