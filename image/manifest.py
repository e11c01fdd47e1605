"""Manifests, indexes and configurations of images, from bytes that a stranger wrote. Pure.

OCI image-spec 1.1 and Docker's image manifest v2 schema 2. Bounded (4 MiB), no duplicate keys, every digest
and size checked; a document that is both an index and a manifest is refused (CVE-2021-41190).
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from image import healthcheck
from image.digest import check
from image.refused import letting_go
from model.errors import Damaged, Unsupported
from model.image import HistoryEntry, ImageConfig, Origin
from model.spec import Struct
from model.status import Platform

MAX_DOCUMENT = 4 << 20
MAX_LAYERS = 500
MAX_BLOB = 1 << 40
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
IMAGE_CONFIGS = ("", OCI_CONFIG, DOCKER_CONFIG)
INLINE_CACHE = "moby.buildkit.cache.v0"
"""BuildKit's name for the records of a build cache in an image's configuration."""
MAX_KEYS = 10_000
MAX_NAME = 512
_ID = re.compile(r"[0-9a-f]{64}\Z")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
ACCEPTED = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX)


class Descriptor(Struct):
    digest: str
    size: int
    media_type: str = ""
    platform: Platform | None = None
    urls: tuple[str, ...] = ()
    annotations: Mapping[str, str] = {}


class Manifest(Struct):
    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str = ""


class Index(Struct):
    manifests: tuple[Descriptor, ...]


class Configuration(Struct):
    """A configuration blob: `diff_ids` bottom first."""

    platform: Platform
    diff_ids: tuple[str, ...]
    config: ImageConfig
    created: float = 0.0
    author: str = ""
    origin: Origin = Origin()
    history: tuple[HistoryEntry, ...] = ()
    cache: str = ""
    """Records of a build cache of its layers, base64 (`image.build.cacheformat`)."""


def load_json(data: bytes, what: str) -> Any:
    """JSON in UTF-8 without duplicate keys, at most 4 MiB. Raises Damaged."""
    if len(data) > MAX_DOCUMENT:
        raise Damaged(f"{what} has {len(data)} bytes, more than {MAX_DOCUMENT}")
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant
        )
        if b"\\u" in data:
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # lone surrogates are no text
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{what} is not valid JSON: {str(error)[:200]}") from error
    return value


def load_object(data: bytes, what: str) -> dict[str, Any]:
    """As `load_json`, and an object whose keys differ by more than case: readers that ignore case would
    otherwise see another document."""
    value = load_json(data, what)
    if not isinstance(value, dict):
        raise Damaged(f"{what} is not a JSON object")
    return _unambiguous(value, what)


def _unambiguous(value: dict[str, Any], what: str) -> dict[str, Any]:
    if len({key.lower() for key in value}) != len(value):
        raise Damaged(f"{what} has keys that differ by case alone")
    return value


@letting_go
def parse_document(
    data: bytes, media_type: str = "", *, configs: tuple[str, ...] = IMAGE_CONFIGS
) -> Manifest | Index:
    """A manifest or an index, told apart by what it holds, checked against what it says it is. `configs`:
    media types that a manifest's configuration may have."""
    raw = load_object(data, "manifest")
    own = _text(raw, "mediaType", "manifest")
    if own and media_type in ACCEPTED and own != media_type:
        raise Damaged(f"manifest: says it is {own[:100]!r}, but came as {media_type}")
    said = own or media_type
    if raw.get("schemaVersion") == 1 or "fsLayers" in raw:
        raise Unsupported("the image has a schema 1 manifest", hint="Push it again with a current tool")
    if raw.get("schemaVersion") != 2:
        raise Damaged("manifest: schemaVersion is not 2")
    if "manifests" in raw and ("layers" in raw or "config" in raw):
        raise Damaged("manifest: is both an index and an image manifest")
    if "manifests" in raw:
        if said in (OCI_MANIFEST, DOCKER_MANIFEST):
            raise Damaged(f"manifest: says it is {said}, but is an index")
        entries = _list(raw, "manifests", "index")
        return Index(manifests=tuple(_descriptor(e, f"manifests[{i}]") for i, e in enumerate(entries)))
    if said in (OCI_INDEX, DOCKER_INDEX):
        raise Damaged(f"manifest: says it is {said}, but is an image manifest")
    return _manifest(raw, said, configs)


def _manifest(raw: Mapping[str, Any], said: str, configs: tuple[str, ...]) -> Manifest:
    config = _descriptor(raw.get("config"), "config")
    if config.media_type not in configs:
        kind = _text(raw, "artifactType", "manifest") or config.media_type
        raise Unsupported(f"it is no container image but {kind[:100]!r}")
    layers = tuple(_descriptor(e, f"layers[{i}]") for i, e in enumerate(_list(raw, "layers", "manifest")))
    if len(layers) > MAX_LAYERS:
        raise Unsupported(f"the image has {len(layers)} layers, more than {MAX_LAYERS}")
    for layer in layers:
        if layer.urls or "nondistributable" in layer.media_type or "foreign" in layer.media_type:
            raise Unsupported(
                f"layer {layer.digest[7:19]} is to be fetched from elsewhere, which is not done"
            )
        if layer.media_type.endswith("+encrypted"):
            raise Unsupported(f"layer {layer.digest[7:19]} is encrypted")
        if layer.media_type and ".tar" not in layer.media_type:
            raise Unsupported(f"layer {layer.digest[7:19]} is no tar but {layer.media_type[:100]!r}")
    return Manifest(config=config, layers=layers, media_type=said)


def choose(index: Index, wanted: Platform) -> Descriptor:
    """The manifest for a platform: its very variant, else the highest one below, else any of the
    architecture. Raises Unsupported with what there is."""
    fitting = [
        (m.platform.variant, m)
        for m in index.manifests
        if m.platform is not None and (m.platform.os, m.platform.arch) == (wanted.os, wanted.arch)
    ]
    exact = [m for variant, m in fitting if variant == wanted.variant]
    below = sorted((pair for pair in fitting if pair[0] <= wanted.variant), key=lambda pair: pair[0])
    if fitting:
        return exact[0] if exact else below[-1][1] if below else fitting[0][1]
    unnamed = [m for m in index.manifests if m.platform is None]
    if len(index.manifests) == 1 and unnamed:
        return unnamed[0]
    have = sorted({shown(m.platform) for m in index.manifests if m.platform})
    raise Unsupported(
        f"the image is not made for {wanted.os}/{wanted.arch}, only for {', '.join(have) or 'nothing'}"
    )


def shown(platform: Platform) -> str:
    """A stranger's words, fit for one line."""
    return "".join(c for c in f"{platform.os}/{platform.arch}"[:40] if c.isprintable())


@letting_go
def parse_configuration(data: bytes) -> Configuration:
    raw = load_object(data, "image configuration")
    rootfs = _unambiguous(_object(raw, "rootfs", "image configuration"), "rootfs")
    diff_ids = tuple(check(str(d), "diff_id") for d in _list(rootfs, "diff_ids", "rootfs"))
    if len(diff_ids) > MAX_LAYERS:
        raise Unsupported(f"the image has {len(diff_ids)} layers, more than {MAX_LAYERS}")
    platform = Platform(
        os=_text(raw, "os", "image configuration") or "linux",
        arch=_text(raw, "architecture", "image configuration"),
        variant=_text(raw, "variant", "image configuration"),
    )
    steps = _list(raw, "history", "image configuration")
    if len(steps) > MAX_KEYS:
        raise Damaged(f"the image's history has {len(steps)} entries, more than {MAX_KEYS}")
    history = tuple(_history(entry) for entry in steps)
    return Configuration(
        platform=platform,
        diff_ids=diff_ids,
        config=_run_config(_object(raw, "config", "image configuration")),
        created=parse_time(_text(raw, "created", "image configuration")),
        author=_text(raw, "author", "image configuration"),
        origin=_origin(raw),
        history=history,
        cache=_text(raw, INLINE_CACHE, "image configuration"),
    )


def _origin(raw: dict[str, Any]) -> Origin:
    """What is no id is left out: others write what they like there."""
    parent, container = raw.get("parent"), raw.get("container")
    config = raw.get("container_config")
    image = config.get("Image") if isinstance(config, dict) else ""
    return Origin(
        parent=parent if isinstance(parent, str) and _DIGEST.match(parent) else "",
        container=container if isinstance(container, str) and _ID.match(container) else "",
        image=image if isinstance(image, str) and len(image) <= MAX_NAME and image.isprintable() else "",
    )


def parse_time(text: str) -> float:
    """RFC 3339 → unix seconds; 0 for what is no time or before 1970 (reproducible builds say year 1)."""
    try:
        return max(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp(), 0.0)
    except (ValueError, OverflowError, OSError):
        return 0.0


def _run_config(raw: dict[str, Any]) -> ImageConfig:
    _unambiguous(raw, "config")
    workdir = _text(raw, "WorkingDir", "config")
    return ImageConfig(
        env=tuple(entry for entry in _strings(raw, "Env") or () if entry.find("=") > 0),
        entrypoint=_strings(raw, "Entrypoint"),
        cmd=_strings(raw, "Cmd"),
        user=_text(raw, "User", "config"),
        workdir=posixpath.normpath("/" + workdir.lstrip("/")) if workdir else "",
        volumes=tuple(sorted({volume_path(path) for path in _keys(raw, "Volumes")})),
        exposed_ports=tuple(sorted({port_name(port) for port in _keys(raw, "ExposedPorts")})),
        labels={
            k: _string(v, "a value of config.Labels") for k, v in _object(raw, "Labels", "config").items()
        },
        stop_signal=_text(raw, "StopSignal", "config"),
        health=healthcheck.parse(raw.get("Healthcheck")),
        shell=_strings(raw, "Shell") or (),
        onbuild=_strings(raw, "OnBuild") or (),
    )


def _keys(raw: Mapping[str, Any], key: str) -> list[str]:
    """Of an object that serves as a set."""
    keys = [_string(name, f"config.{key}") for name in _object(raw, key, "config")]
    if len(keys) > MAX_KEYS:
        raise Damaged(f"config.{key} has {len(keys)} entries, more than {MAX_KEYS}")
    return keys


def volume_path(text: str) -> str:
    """Absolute and clean. Raises Damaged for the root."""
    path = posixpath.normpath("/" + text.lstrip("/"))
    if path == "/":
        raise Damaged(f"config.Volumes: {text[:80]!r} is no place for a volume")
    return path


def port_name(text: str) -> str:
    """`80` is `80/tcp`. Raises Damaged."""
    number, _, protocol = text.partition("/")
    first, dash, last = number.partition("-")
    ends = [first, last] if dash else [first]
    if protocol not in ("", "tcp", "udp", "sctp") or not all(_is_port(end) for end in ends):
        raise Damaged(f"config.ExposedPorts: {text[:80]!r} is no port")
    return f"{number}/{protocol or 'tcp'}"


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536


def _history(raw: Any) -> HistoryEntry:
    if not isinstance(raw, dict):
        raise Damaged("image configuration: a history entry is no object")
    return HistoryEntry(
        created=_text(raw, "created", "history"),
        created_by=_text(raw, "created_by", "history"),
        comment=_text(raw, "comment", "history"),
        author=_text(raw, "author", "history"),
        empty_layer=raw.get("empty_layer") is True,
    )


def _descriptor(raw: Any, where: str) -> Descriptor:
    if not isinstance(raw, dict):
        raise Damaged(f"manifest: {where} is no object")
    _unambiguous(raw, f"manifest: {where}")
    size = raw.get("size")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= MAX_BLOB:
        raise Damaged(f"manifest: {where}.size is {str(size)[:40]}")
    platform = raw.get("platform")
    return Descriptor(
        digest=check(_text(raw, "digest", where), f"{where}.digest"),
        size=size,
        media_type=_text(raw, "mediaType", where),
        platform=None if platform is None else _platform(platform, where),
        urls=_strings(raw, "urls") or (),
        annotations={k: str(v) for k, v in _object(raw, "annotations", where).items()},
    )


def _platform(raw: Any, where: str) -> Platform:
    if not isinstance(raw, dict):
        raise Damaged(f"manifest: {where}.platform is no object")
    return Platform(
        os=_text(raw, "os", where),
        arch=_text(raw, "architecture", where),
        variant=_text(raw, "variant", where),
    )


def _text(raw: Mapping[str, Any], key: str, where: str) -> str:
    value = raw.get(key)
    return "" if value is None else _string(value, f"{where}.{key}")


def _string(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise Damaged(f"{where} is no string")
    if "\0" in value:
        raise Damaged(f"{where} holds a NUL")
    return value


def _strings(raw: Mapping[str, Any], key: str) -> tuple[str, ...] | None:
    value = raw.get(key)
    if value is None:
        return None
    if not isinstance(value, list):
        raise Damaged(f"config.{key} is no list")
    return tuple(_string(item, f"config.{key}") for item in value)


def _list(raw: Mapping[str, Any], key: str, where: str) -> list[Any]:
    value = raw.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise Damaged(f"{where}.{key} is no list")
    return value


def _object(raw: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    value = raw.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Damaged(f"{where}.{key} is no object")
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate key")
    return found


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")
