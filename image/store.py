"""The images of one host: what the `Images` seam promises, on disk.

    <root>/images.json    which images there are         <root>/layers/    unpacked layers, shared
    <root>/configs/       their configurations' bytes    <root>/tmp/       transfers; emptied at start
    <root>/roots/         containers' writable layers    <root>/trash/     being deleted
    <root>/builds/        steps of builds; as tmp/       <root>/buildcache/  which layers steps made

Invariant: an image is in the catalog only when all its layers are unpacked, verified and on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import msgspec

from aio.clock import Clock, SystemClock
from aio.supervisor import Supervisor, in_thread
from image.additions import Additions
from image.attestations import Predicate
from image.base import (
    NOTHING,
    PLAIN,
    Built,
    Choice,
    FindLogin,
    OnProgress,
    PullPolicy,
    PushWish,
    Root,
    anything,
    nobody,
    silent,
)
from image.blobs import BlobStore
from image.build.caching import Exports
from image.build.shared import Finder, FleetCache, GivenRecords
from image.build.snapshots import LayerSnapshots
from image.build.stored import BuildCache
from image.catalog import Catalog
from image.collection import Disk
from image.commit import Commit
from image.drivers.base import StorageDriver
from image.flights import Flights
from image.full import BALLAST, HINT, Ballast
from image.intake import Intake
from image.layers import LayerStore
from image.layertar import Changed
from image.leases import Leases
from image.manifest import Configuration
from image.outbound import Outbound
from image.peers.shelf import Shelf
from image.pull import Downloads
from image.registry.source import Remote, Source
from image.removal import Parts, Removal
from image.roots import Roots
from image.trash import Trash
from image.uses import Uses
from model.api import ImageRemoved
from model.disk import DiskUse
from model.errors import NotFound
from model.image import ImageRecord
from model.registries import NOBODY, Login

log = logging.getLogger("flota.image")
MAX_ARCHIVE = 1 << 40


class ImageStore:
    """`driver_choice` is the storage driver and why it was chosen; `source` is where `pull` gets images
    from."""

    def __init__(
        self,
        root: Path,
        *,
        driver_choice: tuple[StorageDriver, str],
        source: Source,
        clock: Clock | None = None,
    ) -> None:
        self._root = root
        self._tmp = root / "tmp"
        self._storage, self._reason = driver_choice
        self._source = source
        self._supervisor = Supervisor("image")
        self._trash = Trash(root / "trash")
        self._catalog = Catalog(root / "images.json")
        self._configs = BlobStore(root / "configs")
        self._uses = Uses(root / "used.json")
        self._leases = Leases(self._collect_soon)
        self._layers = LayerStore(root / "layers", self._trash, self._leases)
        self._roots = Roots(
            root / "roots", driver=self._storage, trash=self._trash, layer_path=self._layers.path
        )
        self._outbound = Outbound(
            catalog=self._catalog,
            configs=self._configs,
            layers=self._layers,
            source=source,
            leases=self._leases,
        )
        changing = asyncio.Lock()
        self._clock = clock or SystemClock()
        self._ballast = Ballast(root / BALLAST)
        parts = Parts(self._catalog, self._configs, self._layers, self._roots)
        self._additions = Additions(parts, self._leases, changing=changing, now=self._clock.now)
        self._removal = Removal(
            parts,
            self._leases,
            self._uses,
            changing=changing,
            now=self._clock.now,
            ballast=self._ballast,
        )
        self.name = ""
        """Of this host, as builds on others tell people where a step was done."""
        self.builds = LayerSnapshots(
            root / "builds",
            driver=self._storage,
            layers=self._layers,
            trash=self._trash,
            supervisor=self._supervisor,
        )
        self.build_cache = BuildCache(
            root / "buildcache",
            layer=self._layers.get,
            imaged=parts.imaged,
            collect=self._removal.collect,
            snapshots=self.builds,
            supervisor=self._supervisor,
            now=self._clock.now,
            disk=self.disk,
        )
        parts.keeping.append(self.build_cache.chains)
        self._intake = Intake(
            parts,
            self._additions,
            source=source,
            tmp=self._tmp,
            trash=self._trash,
            pulls=Flights(self._supervisor),
            collect_soon=self._collect_soon,
        )

    def shelf(self, indexes: BlobStore) -> Shelf:
        """What of these images other hosts may be given."""
        shelf = Shelf(self._catalog, self._configs, self._layers, indexes)
        shelf.records = GivenRecords(lambda: self.build_cache.records, self._layers.get, lambda: self.name)
        return shelf

    def share_builds(self, finder: Finder, ring: Callable[[], None]) -> None:
        """What other hosts' builds have done is not done again; `ring` when there is something for them."""
        self.build_cache.remote = FleetCache(finder, self.bring, ring)

    async def bring(self, remote: Remote, source: Downloads | None = None) -> None:
        """The layers of a remote, by default from where images come from, and no image: they stay as long as
        somebody holds them. Raises as `Source.download`."""
        await self._intake.bring(remote, source)

    def exports(self, used: Mapping[str, str]) -> Exports:
        """Of the steps that a build used, for `--cache-to`: see `Exports`."""
        return Exports(used, self.build_cache.records, self.builds, self._layers)

    async def open(self) -> None:
        """Read what there is, remove what was half-made. Raises Damaged when records can't be read."""
        await in_thread(self._open)
        self._trash.start(self._supervisor)
        self._layers.start(self._supervisor)
        self.build_cache.start()

    def _open(self) -> None:
        self._root.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._trash.open()
        with contextlib.suppress(FileExistsError):
            self._ballast.write(lambda: self._tmp.mkdir(mode=0o700))
        self._trash.put_all(self._tmp)
        self._catalog.open()
        self._uses.open()
        unknown = (ident for ident, entry in self._catalog.entries.items() if not entry.arrived)
        self._uses.seen(unknown, self._clock.now())
        self._layers.open()
        self._roots.open()
        self.builds.open()
        self.build_cache.open()
        self._removal.drop_incomplete()
        self._configs.open({digest for entry in self._catalog.entries.values() for digest in entry.documents})
        self._removal.collect()
        if why_not := self._ballast.lay():
            log.warning("nothing could be set aside in %s for removals: %s. %s", self._root, why_not, HINT)

    async def close(self) -> None:
        self._trash.stop()
        await self._supervisor.close()
        await self._layers.close()
        await self._source.close()

    @property
    def source(self) -> Source:
        return self._source

    @property
    def driver(self) -> tuple[str, str]:
        return self._storage.name, self._reason

    # -- queries ------------------------------------------------------------------------------------
    def list(self) -> Sequence[ImageRecord]:
        return [entry.record for entry in self._catalog.entries.values()]

    def find(self, ref: str, platform: str = "") -> ImageRecord:
        return self._outbound.found(ref, platform).record

    def family(self, ref: str) -> Sequence[ImageRecord]:
        return [entry.record for entry in self._catalog.family(self._catalog.find(ref))]

    # -- from elsewhere -----------------------------------------------------------------------------
    async def ensure(
        self,
        ref: str,
        *,
        policy: PullPolicy,
        platform: str = "",
        login: FindLogin = nobody,
        progress: OnProgress | None = None,
    ) -> ImageRecord:
        return await self._intake.ensure(ref, policy, platform, login, progress or silent)

    async def pull(
        self, ref: str, *, platform: str = "", progress: OnProgress | None = None, login: Login = NOBODY
    ) -> ImageRecord:
        return await self._intake.pull(ref, platform, progress or silent, login)

    async def pull_all(
        self, ref: str, *, progress: OnProgress | None = None, login: Login = NOBODY
    ) -> Sequence[ImageRecord]:
        return await self._intake.pull_all(ref, progress or silent, login)

    async def load(
        self, chunks: AsyncIterator[bytes], *, platform: str = "", progress: OnProgress | None = None
    ) -> Sequence[ImageRecord]:
        return await self._intake.load(chunks, platform, progress or silent)

    async def import_tar(
        self,
        chunks: AsyncIterator[bytes],
        *,
        ref: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        platform: str = "",
    ) -> ImageRecord:
        return await self._intake.import_tar(chunks, ref, message, changes, platform)

    async def commit(self, container: str, wish: Commit) -> ImageRecord:
        return await self._intake.commit(container, wish)

    async def add_built(
        self,
        made: Sequence[Configuration],
        names: Sequence[str] = (),
        stated: Sequence[Sequence[Predicate]] = (),
    ) -> Built:
        built = await self._intake.add_built(made, names, stated)
        for image in built.images:
            self._uses.used(image.id, self._clock.now())
        return built

    def _collect_soon(self) -> None:
        asyncio.get_running_loop().call_soon(self._removal.collect)

    # -- to elsewhere -------------------------------------------------------------------------------
    async def push(
        self, ref: str, wish: PushWish = PLAIN, *, login: Login = NOBODY, progress: OnProgress | None = None
    ) -> ImageRecord:
        entry, pinned = await self._outbound.push(ref, wish, login, progress or silent)
        return await self._additions.pin(entry, pinned)

    def save(
        self, refs: Sequence[str], platform: str = "", *, names: Sequence[str] = (), whole: bool = False
    ) -> AsyncIterator[bytes]:
        return self._outbound.save(refs, platform, names, whole)

    # -- names and removal --------------------------------------------------------------------------
    async def tag(self, ref: str, name: str) -> ImageRecord:
        return await self._additions.tag(ref, name)

    async def remove(self, ref: str, *, force: bool = False, family: bool = False) -> ImageRemoved:
        return await self._removal.remove(ref, force=force, family=family)

    async def prune(
        self, *, all_unused: bool = False, chosen: Choice = anything, spare: Mapping[str, str] = NOTHING
    ) -> ImageRemoved:
        return await self._removal.prune(all_unused=all_unused, chosen=chosen, spare=spare)

    async def free(self, need: int, *, spare: Mapping[str, str], unused_for: float) -> ImageRemoved:
        cached = (await self.build_cache.free(need)).freed  # what can be built again goes first
        removed = await self._removal.free(max(need - cached, 0), spare=spare, unused_for=unused_for)
        removed = msgspec.structs.replace(removed, freed=removed.freed + cached)
        await self.deleted()
        await in_thread(self._ballast.lay)
        return removed

    async def deleted(self) -> None:
        await self._trash.emptied()

    def disk(self) -> Disk:
        found = os.statvfs(self._root)
        return Disk(capacity=found.f_blocks * found.f_frsize, free=found.f_bavail * found.f_frsize)

    def usage(self, spare: Mapping[str, str]) -> DiskUse:
        return self._removal.usage(spare)

    @contextlib.contextmanager
    def lease(self, ref: str) -> Iterator[ImageRecord]:
        entry = self._catalog.find(ref)
        self._uses.used(entry.record.id, self._clock.now())
        with self._leases.hold(digest for one in self._catalog.family(entry) for digest in one.needed):
            yield entry.record

    # -- roots --------------------------------------------------------------------------------------
    async def prepare_root(self, container: str, image_id: str) -> Root:
        entry = self._catalog.find(image_id)
        self._uses.used(entry.record.id, self._clock.now())
        return await self._roots.prepare(container, entry.record.id, entry.chains)

    async def mount_root(self, container: str) -> Root:
        return await self._roots.mount(container)

    async def unmount_root(self, container: str) -> None:
        await self._roots.unmount(container)

    async def remove_root(self, container: str) -> None:
        with contextlib.suppress(NotFound):
            self._uses.used(self._roots.of(container)[0], self._clock.now())
        await self._roots.remove(container)

    def borrow_root(self, container: str) -> AbstractAsyncContextManager[Root]:
        return self._roots.borrow(container)

    def changed(self, container: str) -> tuple[Changed, tuple[str, ...]]:
        return self._roots.changed(container)

    def roots(self) -> Sequence[Root]:
        return self._roots.all()

    async def root_usage(self, container: str) -> int:
        return await self._roots.usage(container)
