"""What of this host's images others may be given: by a proof that they have seen an image's manifest, or by a
ticket of the controller that names the image.

Invariant: a blob is given only as a part of an image that the asking host may have; a layer is held while it
is read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from image.blobs import BlobStore
from image.catalog import Catalog, Entry
from image.digest import chain_ids, of
from image.full import told_when_full
from image.layers import LayerStore
from image.manifest import Index, parse_document
from image.outgoing import blobs, outgoing
from image.peers.client import ImageDocuments
from image.peers.records import NoRecords, Records
from image.platforms import fits, host_platform
from image.reference import parse
from model.errors import NotFound
from model.spec import Struct


class Kept(Struct):
    """A layer as it travels, whole and verified."""

    path: Path
    size: int
    chain: str


class Shelf:
    """`indexes` keeps the bytes of indexes by which images were named."""

    def __init__(self, catalog: Catalog, configs: BlobStore, layers: LayerStore, indexes: BlobStore) -> None:
        self._catalog = catalog
        self._configs = configs
        self._layers = layers
        self._indexes = indexes
        self.records: Records = NoRecords()
        """Of the build cache, if there is one."""

    def digests(self) -> frozenset[str]:
        """Of all that can be asked for: blobs of layers, what images are named by, keys of builds' steps."""
        found = {entry.record.id for entry in self._catalog.entries.values() if self._kept_whole(entry)}
        for entry in self._catalog.entries.values():
            found.update(self.names(entry))
            found.update(kept[0].digest for chain in entry.chains if (kept := self._layers.blob(chain)))
        found.update(self.records.keys())
        return frozenset(found)

    def _kept_whole(self, entry: Entry) -> bool:
        return all(self._layers.blob(chain) is not None for chain in entry.chains)

    @staticmethod
    def names(entry: Entry) -> frozenset[str]:
        """Digests that mean this image: of its configuration, its manifest, what it was pulled by."""
        pinned = {text.partition("@")[2] for text in entry.record.digests}
        return frozenset({entry.record.id, *pinned, *filter(None, (entry.manifest,))})

    def named(self, digest: str) -> Entry | None:
        """Of several images of one index that for this machine's platform, which others most likely want."""
        ours = host_platform()
        having = [entry for entry in self._catalog.entries.values() if digest in self.names(entry)]
        return min(having, key=lambda entry: not fits(entry.record.platform, ours), default=None)

    def manifest(self, digest: str) -> bytes | None:
        """Of an image that is here."""
        if any(entry.manifest == digest for entry in self._catalog.entries.values()):
            with contextlib.suppress(NotFound):
                return self._configs.get(digest)
        return None

    def having(self, digest: str) -> Iterator[tuple[Entry, Kept]]:
        """The images that have this layer, and the layer."""
        for entry in self._catalog.entries.values():
            for chain in entry.chains:
                kept = self._layers.blob(chain)
                if kept is not None and kept[0].digest == digest:
                    yield entry, Kept(path=kept[1], size=kept[0].size, chain=chain)

    def of_record(self, key: str, digest: str) -> Kept | None:
        """The layer with that blob, of a step's result."""
        record = self.records.get(key)
        if record is None:
            return None
        for chain, layer in zip(
            chain_ids(tuple(one.diff for one in record.layers)), record.layers, strict=True
        ):
            kept = self._layers.blob(chain)
            if layer.blob == digest and kept is not None and kept[0].digest == digest:
                return Kept(path=kept[1], size=kept[0].size, chain=chain)
        return None

    def hold(self, chain: str) -> contextlib.AbstractContextManager[None]:
        return self._layers.hold((chain,))

    def documents(self, entry: Entry, digest: str) -> ImageDocuments:
        """Those that lead to the image from one of its names. Blocks for a few reads. Raises NotFound where a
        document or a layer was not kept."""
        config = self._configs.get(entry.record.id)
        if digest == entry.record.id:
            own = b""
            with contextlib.suppress(NotFound):
                own = self._configs.get(entry.manifest) if entry.manifest else b""
            name = parse(entry.record.names[0] if entry.record.names else "given:given")
            sent = outgoing(name, entry, config, own, blobs(entry, self._layers))
            return ImageDocuments(documents=(sent.manifest,), config=config, names=entry.record.names)
        manifest = self._configs.get(entry.manifest)
        return ImageDocuments(documents=(*self._path(digest, entry), manifest), config=config)

    def _path(self, digest: str, entry: Entry, depth: int = 3) -> tuple[bytes, ...]:
        """Indexes from `digest` down to the one that names the image's manifest. Raises NotFound."""
        manifest, own = entry.manifest, entry.index.encode()
        if digest == manifest:
            return ()
        data = own if own and of(own) == digest else self._indexes.get(digest)
        parsed = parse_document(data)
        if isinstance(parsed, Index) and depth:
            below = [member.digest for member in parsed.manifests]
            if manifest in below:
                return (data,)
            for candidate in below:
                with contextlib.suppress(NotFound):
                    return (data, *self._path(candidate, entry, depth - 1))
        raise NotFound(f"the documents of {digest[:19]} are not all here")

    # -- what comes ---------------------------------------------------------------------------------
    def keep_indexes(self, indexes: tuple[bytes, ...]) -> None:
        """By which an image was named. Blocks for a few writes. Raises Exhausted."""
        with told_when_full("the image's index"):
            for data in indexes:
                self._indexes.put(data)

    def open(self) -> None:
        """Forget the indexes of images that are gone; the catalog is read already."""
        named = {d for entry in self._catalog.entries.values() for d in self.names(entry)}
        self._indexes.open(named)
