"""`GET /system/df`: what the fleet has on its hosts' disks, as Docker counts it."""

from __future__ import annotations

import time
from typing import Any

from msgspec.structs import replace

from api.docker.builds import cache
from api.docker.containers.inspection import Around, listed
from api.docker.containers.listing import images_of, networks_of
from api.docker.containers.sizes import shown, written
from api.docker.images import summary
from api.docker.images.listing import containers_by_image, every
from api.docker.route import Call
from api.docker.times import moment
from api.fanout import each, hosts_for
from model.api import VolumeInfo
from model.errors import InvalidInput
from model.spec import Struct

KINDS = ("container", "image", "volume", "build-cache")


class Usage(Struct):
    type: tuple[str, ...] = ()


async def usage(call: Call) -> dict[str, Any]:
    wanted = call.query_as(Usage).type or KINDS
    for kind in wanted:
        if kind not in KINDS:
            raise InvalidInput(f"unknown object type: {kind[:40]}")
    made: dict[str, Any] = {}
    if "image" in wanted:
        made |= await _images(call)
    if "container" in wanted:
        made["Containers"] = await _containers(call)
    if "volume" in wanted:
        made["Volumes"] = await _volumes(call)
    if "build-cache" in wanted:
        made["BuildCache"] = await cache.entries(call)
        made["BuilderSize"] = 0
    return made


async def _images(call: Call) -> dict[str, Any]:
    found = summary.merged(await every(call.port, call.node()))
    images = [image for image, _ in found]
    shared, using = summary.shared_sizes(images), containers_by_image(call.port)
    return {
        "LayersSize": summary.layers_size(images),
        "Images": [
            summary.line(image, hosts, call.version, containers=using[image.id], shared=shared[image.id])
            for image, hosts in found
        ],
    }


async def _containers(call: Call) -> list[dict[str, Any]]:
    names, prefixes = networks_of(call.port)
    node = call.node()
    infos = [i for i in call.port.list_instances() if node in ("", i.host_name, i.instance.host)]
    images, sizes, now = await images_of(call, infos), await written(call.port, infos), time.time()
    return [
        listed(info, Around(networks=names, prefixes=prefixes), now)
        | shown(images[info.status.image_id], sizes.get(info.instance.id, 0))
        for info in infos
    ]


async def _volumes(call: Call) -> list[dict[str, Any]]:
    """Sizes are not known without reading all of a volume: -1, as Docker says for what it can't count."""
    outcome = await each(call.port, hosts_for(call.port, call.node()), "GET", "/v1/volumes", list[VolumeInfo])
    infos = [replace(info, host=name) for name, found in outcome.or_raise() for info in found]
    return [_volume(info) for info in infos]


def _volume(info: VolumeInfo) -> dict[str, Any]:
    return {
        "Name": info.volume.name,
        "Driver": "local",
        "Mountpoint": info.mountpoint,
        "CreatedAt": moment(info.volume.created_at),
        "Labels": dict(info.volume.labels) or None,
        "Scope": "local",
        "Options": None,
        "UsageData": {"Size": -1, "RefCount": len(info.used_by)},
        "Node": info.host,
    }
