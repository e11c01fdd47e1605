"""What leaves the image store: names, images, then the layers and documents that nothing needs any more.

Invariant: the catalog forgets an image, durably, before anything of it goes; what a lease or a container's
root needs stays, also when its image is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from aio.supervisor import in_thread
from image.base import Choice
from image.blobs import BlobStore
from image.catalog import Catalog, Entry, untagged
from image.collection import Stored, victims
from image.full import Ballast, told_when_full
from image.layers import LayerStore
from image.leases import Leases
from image.reference import familiar, parse
from image.roots import Roots
from image.uses import Uses
from model.api import ImageRemoved
from model.disk import DiskUse
from model.errors import Ambiguous, InUse, InvalidInput, NotFound
from model.image import ImageRecord

log = logging.getLogger("flota.image")
LEASED = "it is being sent, read or made just now"


@dataclass(frozen=True, slots=True)
class Parts:
    """Of a store."""

    catalog: Catalog
    configs: BlobStore
    layers: LayerStore
    roots: Roots
    keeping: list[Callable[[], Collection[str]]] = field(default_factory=list)
    """Who else needs layers, and which, by their chain ids."""

    def imaged(self) -> set[str]:
        """Layers of images and containers."""
        entries = self.catalog.entries.values()
        return {chain for entry in entries for chain in entry.chains} | self.roots.chains()


class Removal:
    """`changing` is held by whoever changes the catalog; `now` tells the time."""

    def __init__(
        self,
        parts: Parts,
        leases: Leases,
        uses: Uses,
        *,
        changing: asyncio.Lock,
        now: Callable[[], float],
        ballast: Ballast,
    ) -> None:
        self._parts = parts
        self._leases = leases
        self._uses = uses
        self._changing = changing
        self._now = now
        self._ballast = ballast
        self._doomed: set[str] = set()
        """Documents whose images are gone."""

    def drop_incomplete(self) -> None:
        """A layer can be lost to a damaged disk; its images must then be fetched again, not run."""
        lost = [
            ident
            for ident, entry in self._parts.catalog.entries.items()
            if any(self._parts.layers.get(chain) is None for chain in entry.chains)
        ]
        for ident in lost:
            log.warning("image %s lacks a layer and is dropped; pull or load it again", ident[7:19])
        if lost:
            self._ballast.write(lambda: self._parts.catalog.drop(*lost))

    def collect(self) -> int:
        """Layers and documents that neither an image, a root nor a lease needs go; their bytes, about."""
        entries = self._parts.catalog.entries.values()
        used = self._parts.imaged().union(*(keep() for keep in self._parts.keeping))
        needed = {digest for entry in entries for digest in entry.documents}
        self._doomed -= needed
        for digest in [digest for digest in self._doomed if not self._leases.keeps(digest)]:
            self._parts.configs.remove(digest)
            self._doomed.discard(digest)
        return self._parts.layers.collect(used.__contains__)

    async def remove(self, ref: str, *, force: bool, family: bool) -> ImageRemoved:
        """A name, or with the last one the image; of a `family` all that `ref` means. Raises InUse, before
        anything goes, when a container's root needs one."""
        async with self._changing:
            meant = self._meant(ref)
            entries = meant if family else meant[:1]
            name = named(ref, entries[0].record)
            staying = [entry for entry in entries if name and len(entry.record.names) > 1]
            going = [entry for entry in entries if entry not in staying]
            for record in (entry.record for entry in going):
                if not name and len(record.names) > 1 and not force:
                    raise InUse(
                        f"image {ref} has {len(record.names)} names", hint="Remove them, or use --force"
                    )
                if users := self._parts.roots.of_image(record.id):
                    raise InUse(
                        f"image {familiar(ref)} is used by container {users[0][:12]}",
                        hint="Remove that first",
                    )
            left = await self._untag(staying, name) if staying else ()
            removed = await self._delete(going)
            names = tuple(dict.fromkeys((*left, *removed.untagged)))
            return msgspec.structs.replace(removed, untagged=names)

    async def prune(self, *, all_unused: bool, chosen: Choice, spare: Mapping[str, str]) -> ImageRemoved:
        """Of the images that no root needs and `chosen` fits, the nameless ones or all. `spare` are
        references of images that stay, each with its reason; the reply tells of those that it kept."""
        async with self._changing:
            gone, spared, why = list[Entry](), dict[str, str](), self._spared(spare)
            used = self._parts.roots.images()
            for entry in self._parts.catalog.entries.values():
                record = entry.record
                if (record.names and not all_unused) or record.id in used:
                    continue
                if not chosen(record):
                    continue
                if record.id in why:
                    spared[record.names[0] if record.names else record.id] = why[record.id]
                else:
                    gone.append(entry)
            return msgspec.structs.replace(await self._delete(gone), spared=spared)

    async def free(self, need: int, *, spare: Mapping[str, str], unused_for: float) -> ImageRemoved:
        """About `need` bytes, of images that nobody used for `unused_for` seconds, longest unused first."""
        async with self._changing:
            now, entries = self._now(), self._parts.catalog.entries
            used = self._parts.roots.images()
            for ident in used:
                self._uses.used(ident, now)
            with contextlib.suppress(OSError):  # a full disk takes no notes, and needs room the more
                await in_thread(self._uses.write, self._uses.noted(entries.keys(), now))
            roots, why = self._parts.roots.chains(), self._spared(spare)
            roots = roots.union(*(keep() for keep in self._parts.keeping))
            sizes = {
                layer.chain: 0 if layer.chain in roots or layer.chain in self._leases else layer.on_disk
                for layer in self._parts.layers
            }
            idents = victims(
                [self._stored(entry, now) for entry in entries.values()],
                sizes,
                spared=why.keys() | used,
                need=need,
                unused_before=now - unused_for,
            )
            return await self._delete([entries[ident] for ident in idents])

    def usage(self, spare: Mapping[str, str]) -> DiskUse:
        """Of all images. What could be had back is what no root, lease or spared image has a part in."""
        entries, why, roots = self._parts.catalog.entries, self._spared(spare), self._parts.roots.chains()
        active, pinned = self._parts.roots.images() & entries.keys(), roots.copy()
        for ident in why:
            pinned.update(entries[ident].chains)
        ours = self._parts.imaged()
        layers = [layer for layer in self._parts.layers if layer.chain in ours or layer.chain in self._leases]
        return DiskUse(
            kind="images",
            total=len(entries),
            active=len(active),
            size=sum(layer.on_disk for layer in layers),
            reclaimable=sum(layer.on_disk for layer in layers if layer.chain not in pinned),
        )

    # -- parts --------------------------------------------------------------------------------------
    def _stored(self, entry: Entry, now: float) -> Stored:
        last = self._uses.last(entry.record.id, entry.arrived, now)
        return Stored(id=entry.record.id, chains=entry.chains, used_at=last)

    def _spared(self, spare: Mapping[str, str]) -> dict[str, str]:
        """Why an image stays, by its id."""
        catalog, why = self._parts.catalog, dict[str, str]()
        for ref, reason in spare.items():
            try:
                for entry in self._meant(ref):
                    why.setdefault(entry.record.id, reason)
            except (NotFound, Ambiguous, InvalidInput):
                continue  # none of ours
        leased = (e.record.id for e in catalog.entries.values() if e.record.id in self._leases)
        return {**dict.fromkeys(leased, LEASED), **why}

    def _meant(self, ref: str) -> Sequence[Entry]:
        """By an id that one image; by a name or a digest also those that came with it. Raises NotFound,
        Ambiguous, InvalidInput."""
        catalog = self._parts.catalog
        entry = catalog.find(ref)
        return catalog.family(entry) if named(ref, entry.record) or "@" in ref else [entry]

    async def _untag(self, entries: Sequence[Entry], name: str) -> tuple[str, ...]:
        changed = [untagged(entry, {name}) for entry in entries]
        with told_when_full("the list of images"):
            await in_thread(self._ballast.write, lambda: self._parts.catalog.put(*changed))
        return (name,)

    async def _delete(self, entries: Sequence[Entry]) -> ImageRemoved:
        """The records first: an image whose layers are going must not be seen."""
        idents = [entry.record.id for entry in entries]
        freed = 0
        try:
            if idents:
                with told_when_full("the list of images"):
                    await in_thread(self._ballast.write, lambda: self._parts.catalog.drop(*idents))
        finally:
            if not set(idents) & self._parts.catalog.entries.keys():
                self._doomed.update(digest for entry in entries for digest in entry.documents)
            freed = self.collect()
            await in_thread(self._ballast.lay)
        names = tuple(name for entry in entries for name in entry.record.names)
        return ImageRemoved(untagged=names, deleted=tuple(idents), freed=freed)


def named(ref: str, record: ImageRecord) -> str:
    """The name of the image that `ref` is; empty when it was found by id or digest."""
    try:
        name = parse(ref).name
    except InvalidInput:
        return ""
    return name if name in record.names else ""
