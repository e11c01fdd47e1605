"""A build cache as a document, for registries, folders and images: BuildKit's cache configuration. Pure.

Layers form chains by `parent`, records name a layer by its place in the list; in an image there are records
alone, and the layers are the image's own. Keys are ours: BuildKit's are digests of its own graph, so neither
builder finds the other's steps, but each reads the other's caches, and tools that copy them copy ours. What
BuildKit has no word for stands under `flota`, which it ignores. Invariant: what is read is bounded, and a
chain of layers ends.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from image.config_blob import timestamp
from image.digest import is_digest, of
from image.manifest import MAX_BLOB, OCI_MANIFEST, Descriptor, load_json, load_object
from model.errors import Damaged
from model.sharedcache import MAX_LAYERS, SharedLayer, SharedRecord
from model.spec import Struct

CONFIG = "application/vnd.buildkit.cacheconfig.v0"
MOST = 20_000
"""Layers, and records."""


class _Notes(Struct, rename={"diff": "diffID", "media": "mediaType", "created": "createdAt"}):
    diff: str = ""
    media: str = ""
    size: int = 0
    created: str = ""


class _Layer(Struct, rename={"notes": "annotations"}):
    blob: str = ""
    parent: int = 0
    """-1: none. BuildKit leaves 0 out."""
    notes: _Notes = _Notes()


class _Result(Struct):
    layer: int = -1


class _Own(Struct):
    ident: str = ""
    created: float = 0.0
    source: str = ""
    kind: str = ""
    size: int = 0
    seconds: float = 0.0


class _Record(Struct, rename={"results": "layers"}):
    digest: str = ""
    results: tuple[_Result, ...] = ()
    flota: _Own | None = None


class _Config(Struct):
    layers: tuple[_Layer, ...] = ()
    records: tuple[_Record, ...] = ()


class CacheDocument:
    """One that was read. Steps of other builders are not in it."""

    def __init__(self, config: _Config) -> None:
        self._layers = config.layers
        self._records = {record.digest: record for record in config.records if record.flota is not None}

    def __len__(self) -> int:
        return len(self._records)

    def get(self, key: str) -> SharedRecord | None:
        """Raises Damaged."""
        record = self._records.get(key)
        if record is None or record.flota is None or not record.results:
            return None
        own = record.flota
        return SharedRecord(
            key=key,
            ident=own.ident,
            layers=self._chain(record.results[0].layer),
            created=own.created,
            source=own.source,
            kind=own.kind,
            size=own.size,
            seconds=own.seconds,
        )

    def _chain(self, top: int) -> tuple[SharedLayer, ...]:
        found: list[SharedLayer] = []
        at = top
        while at != -1:
            if not 0 <= at < len(self._layers) or len(found) >= MAX_LAYERS:
                raise Damaged("the build cache's layers form no chain")
            layer = self._layers[at]
            found.append(SharedLayer(diff=layer.notes.diff, blob=layer.blob, size=layer.notes.size))
            at = layer.parent
        return tuple(reversed(found))


def decode(data: bytes) -> CacheDocument:
    """Raises Damaged."""
    return _document(load_object(data, "build cache"))


def _document(raw: Mapping[str, Any]) -> CacheDocument:
    try:
        config = msgspec.convert(raw, _Config)
    except msgspec.ValidationError as error:
        raise Damaged(f"the build cache can't be read: {error}") from error
    if len(config.layers) > MOST or len(config.records) > MOST:
        raise Damaged(f"the build cache has more than {MOST} entries")
    for layer in config.layers:
        if not is_digest(layer.blob) or not 0 <= layer.notes.size <= MAX_BLOB:
            raise Damaged("the build cache has a layer that can't be")
    return CacheDocument(config)


def decode_inline(text: str, layers: Sequence[Descriptor], diffs: Sequence[str]) -> CacheDocument:
    """Of an image with these layers: what stands in its configuration. Raises Damaged."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise Damaged("the image's build cache is not base64") from error
    raw = {
        "layers": [
            {
                "blob": layer.digest,
                "parent": number - 1,
                "annotations": {"diffID": diff, "size": layer.size},
            }
            for number, (layer, diff) in enumerate(zip(layers, diffs, strict=True))
        ],
        "records": load_json(data, "the image's build cache"),
    }
    return _document(raw)


def encode_inline(records: Iterable[SharedRecord], diffs: Sequence[str]) -> str:
    """Those of them whose layers are the image's first ones; empty if there are none."""
    found = []
    for record in sorted(records, key=lambda one: one.key):
        count = len(record.layers)
        if [layer.diff for layer in record.layers] == list(diffs[:count]):
            found.append(_told(record, count - 1))
    if not found:
        return ""
    return base64.b64encode(json.dumps(found, sort_keys=True, separators=(",", ":")).encode()).decode()


def encode(records: Iterable[SharedRecord], media: Mapping[str, str]) -> bytes:
    """`media`: types of blobs. Equal records give equal bytes, whatever their order."""
    places: dict[tuple[str, ...], int] = {}
    layers: list[dict[str, Any]] = []
    told: list[dict[str, Any]] = []
    for record in sorted(records, key=lambda one: one.key):
        at = -1
        for number, layer in enumerate(record.layers):
            chain = tuple(one.blob for one in record.layers[: number + 1])
            if chain not in places:
                places[chain] = len(layers)
                layers.append(_layer(layer, at, media.get(layer.blob, "")))
            at = places[chain]
        told.append(_told(record, at))
    return json.dumps({"layers": layers, "records": told}, sort_keys=True, separators=(",", ":")).encode()


def _layer(layer: SharedLayer, parent: int, media: str) -> dict[str, Any]:
    notes = {"diffID": layer.diff, "mediaType": media, "size": layer.size}
    return {"blob": layer.blob, "parent": parent, "annotations": notes}


def _told(record: SharedRecord, layer: int) -> dict[str, Any]:
    result = {"layer": layer, "createdAt": timestamp(record.created)}
    own = {
        "ident": record.ident,
        "created": record.created,
        "source": record.source,
        "kind": record.kind,
        "size": record.size,
        "seconds": record.seconds,
    }
    return {"digest": record.key, "layers": [result], "flota": own}


def manifest(config: bytes, layers: Sequence[Descriptor]) -> bytes:
    """An OCI image manifest of a cache, as BuildKit writes it by `image-manifest=true`."""
    blobs = {layer.digest: layer for layer in layers}
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": CONFIG, "digest": of(config), "size": len(config)},
        "layers": [
            {"mediaType": one.media_type, "digest": one.digest, "size": one.size} for one in blobs.values()
        ],
    }
    return json.dumps(document, separators=(",", ":")).encode()
