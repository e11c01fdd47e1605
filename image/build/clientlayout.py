"""OCI layouts in folders of the client: images that builds begin with, and caches.

Only what is asked for is read, document by document, and layers that are not here yet. Invariants: a document
is taken for nothing that its digest does not say; nothing of a layout gets a name on the host, or is there
for others than the build. Source: OCI image-layout.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from image.context.layouts import SCHEME, Layout, layout_of
from image.digest import check, encoded, of
from image.incoming import Incoming, entry_of
from image.manifest import (
    MAX_DOCUMENT,
    Descriptor,
    Index,
    Manifest,
    choose,
    parse_configuration,
    parse_document,
)
from image.pull import Downloads
from image.reference import parse
from image.registry.source import Remote
from model.build import Context
from model.errors import Damaged, NotFound
from model.image import ImageRecord
from model.status import Platform

INDEX = "index.json"
REF_NAME = "org.opencontainers.image.ref.name"
MAX_DEPTH = 3
"""Indexes within indexes."""
LAYOUT = "oci-layout"
"""What messages of transfers call an image without a name."""
Bring = Callable[[Remote, Downloads], Awaitable[None]]
"""The layers of a remote, from there, onto this host."""


class Folder(Protocol):
    """A folder of the client, by paths below it."""

    async def read(self, context: str, path: str, limit: int) -> bytes:
        """Raises NotFound, InvalidInput, and the client's errors."""
        ...

    async def copy(self, context: str, path: str, layer: Descriptor, target: Path) -> None:
        """A blob into a file, verified. Raises as `read`, and Damaged."""
        ...


def reference_of(context: str) -> str:
    """What stages that begin with this context's image call it; no image of a registry is called so."""
    return f"{SCHEME}{context}"


def image_of(context: Context) -> str:
    """By which stages know the image that a named context is; empty: it is files."""
    if context.kind == "layout":
        return reference_of(context.name)
    return context.ref if context.kind == "image" else ""


class Layouts:
    """Images in layouts that a build was given as contexts; `contexts` are all of its contexts."""

    def __init__(self, contexts: tuple[Context, ...], folder: Folder, bring: Bring) -> None:
        self._contexts = {reference_of(one.name): one for one in contexts if one.kind == "layout"}
        self._folder = folder
        self._bring = bring

    def __contains__(self, ref: str) -> bool:
        return ref in self._contexts

    async def image(self, ref: str, platform: Platform) -> ImageRecord:
        """Its layers are on this host when this returns; whoever wants them to stay holds them at once.
        Raises the client's errors, NotFound, Damaged, Unsupported."""
        context = self._contexts[ref]
        wanted = layout_of(context.ref)
        entry = await self._entry(context.name, wanted)
        manifest, digest = await self._manifest(context.name, entry, platform)
        config = await self._document(context.name, manifest.config)
        parsed = parse_configuration(config)
        if len(parsed.diff_ids) != len(manifest.layers):
            raise Damaged(
                f"{context.ref[:200]}: the image has {len(manifest.layers)} layers, its configuration "
                f"{len(parsed.diff_ids)}"
            )
        remote = Remote(
            reference=parse(LAYOUT), config=config, parsed=parsed, layers=manifest.layers, pinned=""
        )
        await self._bring(remote, FromFolder(self._folder, context.name))
        image = Incoming(config=config, parsed=parsed, digests=(f"{context.name}@{digest}",))
        return entry_of(image, None, lambda chain: None).record

    async def _entry(self, context: str, wanted: Layout) -> Descriptor:
        index = await read_index(self._folder, context)
        if wanted.digest:
            known = [one for one in index.manifests if one.digest == wanted.digest]
            return known[0] if known else Descriptor(digest=check(wanted.digest), size=-1)
        return tagged(index, wanted.tag, wanted.folder[:200])

    async def _manifest(self, context: str, entry: Descriptor, platform: Platform) -> tuple[Manifest, str]:
        for _ in range(MAX_DEPTH):
            document = parse_document(await self._document(context, entry), entry.media_type)
            if isinstance(document, Manifest):
                return document, entry.digest
            entry = choose(document, platform)
        raise Damaged(f"indexes nested deeper than {MAX_DEPTH}")

    async def _document(self, context: str, entry: Descriptor) -> bytes:
        data = await self._folder.read(context, place(entry), MAX_DOCUMENT)
        if of(data) != entry.digest:
            raise Damaged(f"blob {entry.digest[:19]} of the layout does not match its digest")
        return data


class FromFolder:
    """Downloads."""

    def __init__(self, folder: Folder, context: str) -> None:
        self._folder = folder
        self._context = context

    async def download(
        self, remote: Remote, layer: Descriptor, path: Path, progress: Callable[[int], None]
    ) -> None:
        del remote
        await self._folder.copy(self._context, place(layer), layer, path)
        progress(layer.size)


async def read_index(folder: Folder, context: str) -> Index:
    """Raises as `Folder.read`, and Damaged."""
    found = parse_document(await folder.read(context, INDEX, MAX_DOCUMENT))
    if not isinstance(found, Index):
        raise Damaged("its index.json is no index")
    return found


def tagged(index: Index, tag: str, where: str) -> Descriptor:
    """The last one of that tag. Raises NotFound with the tags that there are."""
    found = [one for one in index.manifests if one.annotations.get(REF_NAME) == tag]
    if found:
        return found[-1]
    tags = sorted({one.annotations[REF_NAME] for one in index.manifests if REF_NAME in one.annotations})
    have = ", ".join(tag[:60] for tag in tags[:10]) or "none"
    raise NotFound(f"{where} holds nothing with the tag {tag[:128]}", hint=f"Tags in it: {have}")


def place(blob: Descriptor) -> str:
    return f"blobs/sha256/{encoded(check(blob.digest))}"
