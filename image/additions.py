"""What enters the image store: images whose layers are here, more names and digests of those that are.

Invariant: an image's documents are kept before the catalog has it, and held until it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from aio.supervisor import in_thread
from image.catalog import Entry, tagged
from image.digest import of
from image.full import told_when_full
from image.incoming import Incoming, entry_of
from image.leases import Leases
from image.reference import parse
from image.removal import Parts
from model.image import ImageRecord


class Additions:
    """`changing` is held by whoever changes the catalog; `now` tells the time."""

    def __init__(
        self, parts: Parts, leases: Leases, *, changing: asyncio.Lock, now: Callable[[], float]
    ) -> None:
        self._parts = parts
        self._leases = leases
        self._changing = changing
        self._now = now

    async def add(self, images: Sequence[Incoming]) -> Sequence[ImageRecord]:
        """All or none; their layers are here and held."""
        async with self._changing:
            known, layer = self._parts.catalog.entries, self._parts.layers.get
            now = self._now()
            entries = [entry_of(image, known.get(of(image.config)), layer, now) for image in images]
            with self._leases.hold(digest for entry in entries for digest in entry.documents):
                await in_thread(self._keep, images, entries)
            return [entry.record for entry in entries]

    def _keep(self, images: Sequence[Incoming], entries: Sequence[Entry]) -> None:
        """The documents' own bytes stay: they are what the image's id and digest are the digests of."""
        for image in images:
            self._parts.configs.put(image.config)
            if image.manifest:
                self._parts.configs.put(image.manifest)
            for data in image.attached:
                self._parts.configs.put(data)
        self._parts.catalog.put(*entries)

    async def tag(self, ref: str, name: str) -> ImageRecord:
        """Of a family all get the name. Raises as `Catalog.find`, and InvalidInput."""
        async with self._changing:
            catalog, full = self._parts.catalog, parse(name).name
            changed = [tagged(one, full) for one in catalog.family(catalog.find(ref))]
            with told_when_full("the list of images"):
                await in_thread(catalog.put, *changed)
            return changed[0].record

    async def pin(self, entry: Entry, digest: str) -> ImageRecord:
        """A registry has the image by that digest; nothing is changed of one that is gone meanwhile."""
        async with self._changing:
            now = self._parts.catalog.entries.get(entry.record.id)
            if now is None or digest in now.record.digests:
                return entry.record
            record = msgspec.structs.replace(now.record, digests=(*now.record.digests, digest))
            await in_thread(self._parts.catalog.put, msgspec.structs.replace(now, record=record))
            return record
