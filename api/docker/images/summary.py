"""An image as Docker's clients see it: a line of the list, an inspection, its history. Pure.

Source: Docker Engine API 1.51, "ImageSummary", "ImageInspect"; fields that went with a version are given to
clients from before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from api.docker.containers.inspection import healthcheck
from api.docker.images.names import NO_DIGEST, NONE, shown
from api.docker.times import NEVER, moment
from api.docker.versions import Version
from model.api import ImageInfo
from model.errors import InvalidInput
from model.image import HistoryEntry, ImageConfig, ImageRecord
from model.quantity import parse_moment

EMPTY_LISTS: Version = (1, 43)
"""From here on an image without names has empty lists, before words that say so."""
NO_VIRTUAL_SIZE: Version = (1, 44)
NO_CONTAINER: Version = (1, 45)
SLIM_CONFIG: Version = (1, 50)
"""From here on an image's configuration has no fields that only containers fill."""
COUNTED: Version = (1, 51)


def merged(infos: Iterable[ImageInfo]) -> list[tuple[ImageRecord, tuple[str, ...]]]:
    """Each image once, with all its names and the hosts that have it; newest first."""
    records: dict[str, ImageRecord] = {}
    hosts: dict[str, list[str]] = {}
    for info in infos:
        image = info.image
        hosts.setdefault(image.id, []).append(info.host)
        before = records.get(image.id)
        if before is None:
            records[image.id] = image
            continue
        records[image.id] = replace(
            before,
            names=tuple(dict.fromkeys((*before.names, *image.names))),
            digests=tuple(dict.fromkeys((*before.digests, *image.digests))),
            layer_sizes=before.layer_sizes or image.layer_sizes,
        )
    found = [(record, tuple(hosts[ident])) for ident, record in records.items()]
    return sorted(found, key=lambda pair: (-pair[0].created, pair[0].id))


def line(
    image: ImageRecord, hosts: Sequence[str], version: Version, *, containers: int = -1, shared: int = -1
) -> dict[str, Any]:
    tags, digests = shown(image.names), shown(image.digests)
    if version < EMPTY_LISTS:
        tags, digests = tags or [NONE], digests or [NO_DIGEST]
    made: dict[str, Any] = {
        "Containers": containers,
        "Created": int(image.created),
        "Id": image.id,
        "Labels": dict(image.config.labels) or None,
        "ParentId": image.origin.parent,
        "RepoDigests": digests,
        "RepoTags": tags,
        "SharedSize": shared,
        "Size": image.size,
        "Nodes": list(hosts),
    }
    if version < NO_VIRTUAL_SIZE:
        made["VirtualSize"] = image.size
    return made


def shared_sizes(images: Iterable[ImageRecord]) -> dict[str, int]:
    """Bytes of each image that others have too, by id."""
    every = list(images)
    users = Counter(layer for image in every for layer in set(image.layers))
    return {
        image.id: sum(
            size for layer, size in zip(image.layers, image.layer_sizes, strict=False) if users[layer] > 1
        )
        for image in every
    }


def layers_size(images: Iterable[ImageRecord]) -> int:
    """Bytes of all layers, each once; of images of older hosts their own size."""
    sizes: dict[str, int] = {}
    unknown = 0
    for image in images:
        if not image.layer_sizes:
            unknown += image.size
        sizes.update(zip(image.layers, image.layer_sizes, strict=False))
    return sum(sizes.values()) + unknown


def inspect(image: ImageRecord, hosts: Sequence[str], driver: str, version: Version) -> dict[str, Any]:
    last = image.history[-1] if image.history else HistoryEntry()
    made: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": shown(image.names),
        "RepoDigests": shown(image.digests),
        "Parent": image.origin.parent,
        "Comment": last.comment,
        "Created": moment(image.created) if image.created else NEVER,
        "DockerVersion": "",
        "Author": image.author,
        "Config": config(image.config, version),
        "Architecture": image.platform.arch,
        "Os": image.platform.os,
        "Size": image.size,
        "GraphDriver": {"Name": driver, "Data": None},
        "RootFS": {"Type": "layers", "Layers": list(image.layers)},
        "Metadata": {"LastTagTime": NEVER},
        "Nodes": list(hosts),
    }
    if image.platform.variant:
        made["Variant"] = image.platform.variant
    if version < NO_VIRTUAL_SIZE:
        made["VirtualSize"] = image.size
    if version < NO_CONTAINER:
        made["Container"] = image.origin.container
        made["ContainerConfig"] = config(ImageConfig(), version) | {"Image": image.origin.image}
    return made


def config(config: ImageConfig, version: Version) -> dict[str, Any]:
    made: dict[str, Any] = {
        "User": config.user,
        "Env": list(config.env),
        "Cmd": None if config.cmd is None else list(config.cmd),
        "Volumes": {path: {} for path in config.volumes} or None,
        "WorkingDir": config.workdir,
        "Entrypoint": None if config.entrypoint is None else list(config.entrypoint),
        "OnBuild": list(config.onbuild) or None,
        "Labels": dict(config.labels) or None,
    }
    if version < SLIM_CONFIG:
        made |= dict.fromkeys(("Hostname", "Domainname", "Image"), "")
        made |= dict.fromkeys(
            ("AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce"), False
        )
    if config.exposed_ports:
        made["ExposedPorts"] = {port: {} for port in config.exposed_ports}
    if config.stop_signal:
        made["StopSignal"] = config.stop_signal
    if config.shell:
        made["Shell"] = list(config.shell)
    if config.health is not None:
        made["Healthcheck"] = healthcheck(config.health)
    return made


def history(image: ImageRecord) -> list[dict[str, Any]]:
    """Newest first; the image's own id at its last step, as only that one has any."""
    sizes = iter(image.layer_sizes)
    entries: Sequence[HistoryEntry] = image.history or tuple(HistoryEntry() for _ in image.layers)
    found: list[dict[str, Any]] = [
        {
            "Id": "<missing>",
            "Created": _seconds(entry.created),
            "CreatedBy": entry.created_by,
            "Tags": None,
            "Size": 0 if entry.empty_layer else next(sizes, 0),
            "Comment": entry.comment,
        }
        for entry in entries
    ]
    if found:
        found[-1] |= {"Id": image.id, "Tags": shown(image.names) or None}
    return found[::-1]


def _seconds(text: str) -> int:
    """Whole unix seconds of a stranger's RFC 3339; 0 for what is none."""
    if not text:
        return 0
    try:
        return max(int(parse_moment(text, 0.0)), 0)
    except InvalidInput:
        return 0


def counts(images: Mapping[str, int], ident: str, version: Version, *, always: bool = False) -> int:
    """Containers of an image; -1: not counted, as clients before 1.51 have it."""
    return images.get(ident, 0) if always or version >= COUNTED else -1
