"""Image archives as `docker save`, skopeo and buildah write them: docker-archive and OCI layout in a tar.

An uncompressed archive is read where it lies; the members of a compressed one are copied into a folder under
names that we choose, so that nothing in it decides where anything lands. Then its documents are read.
Sources: moby image/spec v1.2 (manifest.json), OCI image-layout.md.
"""

from __future__ import annotations

import os
import posixpath
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from image.compression import decompressed, kind_of
from image.digest import encoded, is_digest, of
from image.manifest import (
    MAX_DOCUMENT,
    Configuration,
    Descriptor,
    Index,
    Manifest,
    choose,
    load_json,
    parse_configuration,
    parse_document,
)
from image.part import Part, opened
from image.reference import parse
from image.tarstream import TarReader
from model.errors import Damaged, Exhausted, InvalidInput
from model.spec import Struct
from model.status import Platform

MAX_MEMBERS = 10_000
MAX_IMAGES = 1000
REF_NAME = "org.opencontainers.image.ref.name"
DOCKER_NAME = "io.containerd.image.name"


class Found(Struct):
    """One image of an archive: its configuration's bytes, layer blobs bottom first, names it had."""

    config: bytes
    parsed: Configuration
    blobs: tuple[Part, ...]
    names: tuple[str, ...] = ()
    manifest: bytes = b""
    """An OCI layout's, as it is in it."""


class Archive:
    """Members of an archive by their name in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, Part] = {}
        self._links: dict[str, str] = {}

    def extract(self, source: Path, limit: int) -> None:
        """Find the members, and copy them out if need be; `limit` bounds their bytes. `source` must stay
        until they have been read. Raises Damaged, Exhausted."""
        total = 0
        with open(source, "rb") as file:
            in_place = not kind_of(file.read(6))
            file.seek(0)
            reader = TarReader(decompressed(file))
            for count, member in enumerate(reader):
                name = posixpath.normpath(member.name.decode("utf-8", "replace")).lstrip("/")
                if count > MAX_MEMBERS:
                    raise Damaged(f"the archive has more than {MAX_MEMBERS} members; is it an image archive?")
                if member.kind in ("symlink", "hardlink"):
                    target = member.link.decode("utf-8", "replace")
                    base = posixpath.dirname(name) if member.kind == "symlink" else ""
                    self._links[name] = posixpath.normpath(posixpath.join(base, target)).lstrip("/")
                if member.kind != "file":
                    continue
                if member.regions is not None:
                    raise Damaged(f"the archive holds {name[:80]!r} as a sparse file; no image tool does")
                self._links.pop(name, None)
                total += member.size
                if total > limit:
                    raise Exhausted(f"the archive's content has more than {limit} bytes")
                at = reader.position
                self._files[name] = (
                    Part(path=str(source), offset=at, size=member.size)
                    if in_place
                    else self._copy(reader, count)
                )

    def _copy(self, reader: TarReader, number: int) -> Part:
        path = self._folder / f"member-{number}"
        try:
            with open(path, "wb", buffering=0) as file:
                for piece in reader.content():
                    view = memoryview(piece)
                    while view:
                        view = view[file.write(view) :]
        except OSError as error:
            raise Exhausted(f"no space to read the archive: {error.strerror}") from error
        return Part(path=str(path), size=os.path.getsize(path))

    def images(self, platform: Platform) -> list[Found]:
        """Every image in it. Raises Damaged when it is no image archive or lacks a part."""
        if "manifest.json" in self._files:
            return [self._docker_image(entry) for entry in self._docker_manifest()]
        if "index.json" in self._files:
            return self._oci_images(platform)
        raise Damaged(
            "the archive holds neither manifest.json nor index.json, so it is no image",
            hint="For a root file system tar use import instead of load",
        )

    # -- docker-archive -----------------------------------------------------------------------------
    def _docker_manifest(self) -> list[dict[str, Any]]:
        entries = load_json(self._read("manifest.json"), "manifest.json")
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries) or not entries:
            raise Damaged("manifest.json is no list of images")
        if len(entries) > MAX_IMAGES:
            raise Damaged(f"the archive has more than {MAX_IMAGES} images")
        return entries

    def _docker_image(self, entry: dict[str, Any]) -> Found:
        config, layers, tags = entry.get("Config"), entry.get("Layers") or [], entry.get("RepoTags") or []
        if not isinstance(config, str) or not _are_strings(layers) or not _are_strings(tags):
            raise Damaged("manifest.json: Config, Layers or RepoTags are not strings")
        return self._found(self._read(config), [self._part(layer) for layer in layers], tags)

    # -- OCI layout ---------------------------------------------------------------------------------
    def _oci_images(self, platform: Platform) -> list[Found]:
        index = parse_document(self._read("index.json"))
        if not isinstance(index, Index) or not index.manifests:
            raise Damaged("index.json names no image")
        ours = [entry for entry in index.manifests if entry.platform in (None, platform)]
        found = []
        for entry in ours or index.manifests:
            manifest, raw = self._manifest(entry, platform, depth=0)
            config = self._blob(manifest.config)
            layers = [self._blob_part(layer) for layer in manifest.layers]
            name = entry.annotations.get(DOCKER_NAME) or entry.annotations.get(REF_NAME) or ""
            image = self._found(config, layers, [name] if _is_name(name) else [])
            found.append(replace(image, manifest=raw))
        return found

    def _manifest(self, entry: Descriptor, platform: Platform, depth: int) -> tuple[Manifest, bytes]:
        raw = self._blob(entry)
        document = parse_document(raw, entry.media_type)
        if isinstance(document, Manifest):
            return document, raw
        if depth >= 3:
            raise Damaged("indexes nested deeper than 3")
        return self._manifest(choose(document, platform), platform, depth + 1)

    def _blob_part(self, descriptor: Descriptor) -> Part:
        part = self._part(f"blobs/sha256/{encoded(descriptor.digest)}")
        if part.size != descriptor.size:
            raise Damaged(f"blob {descriptor.digest[:19]} has another size than its descriptor says")
        return part

    def _blob(self, descriptor: Descriptor) -> bytes:
        data = _read_document(self._blob_part(descriptor))
        if of(data) != descriptor.digest:
            raise Damaged(f"blob {descriptor.digest[:19]} does not match its digest")
        return data

    # -- parts --------------------------------------------------------------------------------------
    def _found(self, config: bytes, blobs: list[Part], names: list[str]) -> Found:
        parsed = parse_configuration(config)
        if len(parsed.diff_ids) != len(blobs):
            raise Damaged(f"the image has {len(blobs)} layers, its configuration {len(parsed.diff_ids)}")
        try:
            full = tuple(parse(name).name for name in names)
        except InvalidInput as error:
            raise Damaged(f"the archive names an image badly: {error.message}") from error
        return Found(config=config, parsed=parsed, blobs=tuple(blobs), names=full)

    def _part(self, name: str) -> Part:
        name = posixpath.normpath(name).lstrip("/")
        for _ in range(8):
            if name in self._files:
                return self._files[name]
            if name not in self._links:
                break
            name = self._links[name]
        raise Damaged(f"the archive lacks {name[:200]!r}")

    def _read(self, name: str) -> bytes:
        return _read_document(self._part(name))


def _read_document(part: Part) -> bytes:
    if part.size > MAX_DOCUMENT:
        raise Damaged(f"a document of the archive has more than {MAX_DOCUMENT} bytes")
    with opened(part) as file:
        return file.read()


def _are_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_name(text: str) -> bool:
    """A reference annotation may be a bare tag; only a full name names the image."""
    return bool(text) and not is_digest(text) and ("/" in text or ":" in text)
