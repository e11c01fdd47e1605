"""`GET /images/json`, `/images/{name}/json` and `…/history`: the images of all hosts as one list."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from msgspec import field
from msgspec.structs import replace

from api.docker.containers.creating import PLATFORM
from api.docker.errors import Refusal
from api.docker.hosts import find_image
from api.docker.images import summary
from api.docker.parameters import Filters, check_filters, one_truth
from api.docker.ports import DockerPort
from api.docker.route import Call
from api.fanout import each, hosts_for
from api.imagefilters import filter_images
from model.api import ImageInfo
from model.errors import InvalidInput, NotFound
from model.image import ImageRecord
from model.quantity import parse_moment
from model.spec import Struct

FILTERS = ("dangling", "label", "label!", "reference", "before", "since", "until")
Found = list[tuple[ImageRecord, tuple[str, ...]]]


class List(Struct):
    all: bool = False
    digests: bool = False
    filters: Filters = field(default_factory=dict)
    filter: str = ""
    """Of clients before 1.25: a reference."""
    shared_size: bool = False


class Inspect(Struct):
    platform: str = ""
    manifests: bool = False


async def list_(call: Call) -> list[dict[str, Any]]:
    query = call.query_as(List)
    filters = dict(query.filters)
    if query.filter:
        filters["reference"] = (*filters.get("reference", ()), query.filter)
    infos = filter_images(await every(call.port, call.node()), native_filters(filters, time.time()))
    found = summary.merged(infos)
    shared = summary.shared_sizes(image for image, _ in found) if query.shared_size else {}
    using = containers_by_image(call.port)
    return [
        summary.line(
            image,
            hosts,
            call.version,
            containers=summary.counts(using, image.id, call.version),
            shared=shared.get(image.id, -1),
        )
        for image, hosts in found
    ]


async def every(port: DockerPort, node: str = "") -> list[ImageInfo]:
    """The images of each ready host, or of that one. Raises NotFound, Unavailable."""
    outcome = await each(port, hosts_for(port, node), "GET", "/v1/images", list[ImageInfo])
    return [replace(info, host=name) for name, infos in outcome.or_raise() for info in infos]


def native_filters(filters: Filters, now: float) -> list[str]:
    """Docker's filters as ours: the same keys, truths spelt out, moments in unix seconds. Raises
    InvalidInput."""
    texts: list[str] = []
    for key, values in check_filters(filters, FILTERS).items():
        if key == "dangling" and values:
            texts.append(f"dangling={str(one_truth(filters, key)).lower()}")
        elif key == "until":
            texts += [f"until={parse_moment(value, now)!r}" for value in values]
        elif key != "dangling":
            texts += [f"{key}={value}" for value in values]
    return texts


def containers_by_image(port: DockerPort) -> Counter[str]:
    return Counter(info.status.image_id for info in port.list_instances() if info.status.image_id)


async def inspect_(call: Call) -> dict[str, Any]:
    image, hosts = await one(call, platform_of(call.query_as(Inspect).platform))
    known = {h.host.spec.name: h.host.facts.storage_driver for h in call.port.list_hosts()}
    return summary.inspect(image, hosts, known.get(hosts[0], ""), call.version)


async def history(call: Call) -> list[dict[str, Any]]:
    image, _ = await one(call, platform_of(call.query_as(Inspect).platform))
    return summary.history(image)


async def one(call: Call, platform: str = "") -> tuple[ImageRecord, tuple[str, ...]]:
    """What the path names, and on which hosts it is: the newest, where hosts mean different images by a
    name. Raises NotFound."""
    names = dict(call.port.ready_hosts())
    found = await find_image(call.port, call.ref(), platform, call.node())
    infos = [replace(info, host=names.get(host, "")) for host, info in found]
    image, hosts = summary.merged(infos)[0]
    return image, hosts


def platform_of(text: str) -> str:
    """`os/arch[/variant]`, as a text or as JSON of 1.48 on; empty for none. Raises InvalidInput."""
    if text.startswith("{"):
        text = _platform_of_json(text)
    if text and not PLATFORM.match(text):
        raise InvalidInput(f"invalid platform {text[:80]!r}: write os/arch or os/arch/variant")
    return text


def _platform_of_json(text: str) -> str:
    import msgspec

    try:
        raw = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidInput(f"failed to parse platform: {error}") from error
    parts = (raw.get("os") or "linux", raw.get("architecture"), raw.get("variant"))
    return "/".join(part for part in parts if isinstance(part, str) and part)


async def several(call: Call, refs: Sequence[str], platform: str = "") -> list[tuple[str, str]]:
    """(id, name) of hosts that have all of them. Raises NotFound; Refusal where a name means different images
    on them."""
    hosts: dict[str, str] | None = None
    for ref in refs:
        found = await find_image(call.port, ref, platform, call.node())
        if len({info.image.id for _, info in found}) > 1:
            raise Refusal(
                409,
                f"{ref} is not the same image on every host: name a host by the header "
                "X-PortainerAgent-Target, or the image by its id",
            )
        idents = {ident for ident, _ in found}
        ready = dict(call.port.ready_hosts()) if hosts is None else hosts
        hosts = {ident: name for ident, name in ready.items() if ident in idents}
    if not hosts:
        raise NotFound("no host has all these images", hint="Pull them on one host, or save them one by one")
    return list(hosts.items())
