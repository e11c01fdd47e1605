"""Indexes: which of their manifests are images, and new ones made of images. Pure.

Sources: OCI image-spec 1.1, image-index.md; docker/cli, "docker manifest". Attestations, which BuildKit adds
for a platform `unknown/unknown`, are no images.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from image.digest import check, of
from image.manifest import (
    DOCKER_INDEX,
    MAX_BLOB,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Index,
    load_object,
    parse_document,
)
from image.refused import letting_go
from model.errors import Damaged, Unsupported
from model.spec import Struct
from model.status import Platform

MAX_KEPT = 256 << 10
"""Bytes of an index that is kept with its images; real ones have a few thousand."""
MAX_MEMBERS = 100
UNKNOWN = "unknown"


class Linked(Struct):
    """What a document in a registry names: it can be put elsewhere once that is there."""

    blobs: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] = ()
    media_type: str = ""
    subject: str = ""


def images_of(index: Index) -> tuple[Descriptor, ...]:
    """Raises Unsupported for an index of nothing, or of more than anybody needs."""
    found = tuple(m for m in index.manifests if m.platform is not None and m.platform.os != UNKNOWN)
    if not found:
        raise Unsupported("the index names no platform's image")
    if len(index.manifests) > MAX_MEMBERS:
        raise Unsupported(f"the index names {len(index.manifests)} manifests, more than {MAX_MEMBERS}")
    return found


def kept(data: bytes) -> str:
    """An index as it is kept with its images. Raises Unsupported."""
    if len(data) > MAX_KEPT:
        raise Unsupported(f"the index has {len(data)} bytes, more than {MAX_KEPT}")
    return data.decode("utf-8")


def members_of(text: str) -> tuple[Descriptor, ...]:
    """All manifests of a kept index."""
    parsed = parse_document(text.encode())
    assert isinstance(parsed, Index)
    return parsed.manifests


@letting_go
def media_type_of(data: bytes) -> str:
    """Of an index. Raises Damaged."""
    raw = load_object(data, "index")
    said = raw.get("mediaType")
    if "manifests" not in raw or said not in (None, OCI_INDEX, DOCKER_INDEX):
        raise Damaged("it is no index")
    return said or OCI_INDEX


@letting_go
def linked(data: bytes, media_type: str) -> Linked:
    """Of any document, be it an image's, an artifact's or an index. Raises Damaged, Unsupported."""
    raw = load_object(data, "manifest")
    said = raw.get("mediaType") or media_type or (OCI_INDEX if "manifests" in raw else OCI_MANIFEST)
    subject = raw.get("subject")
    of_whom = _descriptor(subject).digest if subject else ""
    if not isinstance(said, str) or not said.isascii() or not said.isprintable():
        raise Damaged("manifest: its media type is no text")
    if "manifests" in raw:
        members = tuple(_descriptor(entry) for entry in _entries(raw, "manifests"))
        return Linked(manifests=members, media_type=said, subject=of_whom)
    blobs = [_descriptor(entry) for key in ("layers", "blobs") for entry in _entries(raw, key)]
    if raw.get("config") is not None:
        blobs.append(_descriptor(raw["config"]))
    return Linked(blobs=tuple(blobs), media_type=said, subject=of_whom)


@letting_go
def entries_of(data: bytes) -> list[dict[str, Any]]:
    """An index's entries as they are written, each with a good descriptor. Raises Damaged."""
    entries = _entries(load_object(data, "index"), "manifests")
    for entry in entries:
        _descriptor(entry)
    return entries


def made(entries: Sequence[Mapping[str, Any]], media_type: str = OCI_INDEX) -> bytes:
    """Canonical: equal entries give equal digests."""
    document = {"schemaVersion": 2, "mediaType": media_type, "manifests": list(entries)}
    return json.dumps(document, separators=(",", ":")).encode()


def described(manifest: bytes, platform: Platform) -> dict[str, Any]:
    """An image's entry in an index."""
    words = {"architecture": platform.arch, "os": platform.os, "variant": platform.variant}
    return {
        "mediaType": OCI_MANIFEST,
        "digest": of(manifest),
        "size": len(manifest),
        "platform": {key: value for key, value in words.items() if value},
    }


def _entries(raw: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = raw.get(key)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise Damaged(f"manifest: {key} is no list of objects")
    if len(found) > 10 * MAX_MEMBERS:
        raise Unsupported(f"manifest: {key} has {len(found)} entries")
    return found


def _descriptor(raw: Any) -> Descriptor:
    if not isinstance(raw, dict):
        raise Damaged("manifest: a descriptor is no object")
    size, kind = raw.get("size"), raw.get("mediaType")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= MAX_BLOB:
        raise Damaged(f"manifest: a descriptor's size is {str(size)[:40]}")
    digest = check(str(raw.get("digest", "")), "digest of a descriptor")
    return Descriptor(digest=digest, size=size, media_type=kind if isinstance(kind, str) else "")
