"""The files of a build's steps: each an upper directory over layers, which becomes a layer where it lies.

    <builds>/<n>/      what a storage driver makes of one step; thrown away, at start too
    layers/<n>/fs      a kept step's files, renamed into place, not copied

A kept layer is known as `step:<ident>` until its digest is: a process digests and compresses it while later
steps stand on it already. Two steps with equal content come to one layer. Invariants: what is half-made has
no marker and goes at the next start; a layer's files stay as long as anything is mounted over them.

A layer of `COPY --link` stands on nothing. Over others its directory is mounted at once, as it is; once it
was unpacked for these it is a layer of its own, as layers are told apart by all that is below them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from aio.supervisor import Supervisor, in_thread
from image.build.base import Files
from image.build.upper import age, settled_path, tidy
from image.digest import chain_ids, over
from image.drivers.base import StorageDriver
from image.full import told_when_full
from image.layers import LayerStore
from image.layertar import Changed
from image.part import Part
from image.trash import Trash
from image.unpack import Result
from model.errors import Damaged
from model.image import ImageRecord

STEP = "step:"
SCRATCH = Files(id="scratch")


class _Pending:
    """A step's layer on its way. `users` hold it; with the last one it goes, or is a layer like any other."""

    def __init__(
        self, folder: Path, below: tuple[str, ...], settled: asyncio.Future[tuple[str, str]]
    ) -> None:
        self.folder = folder
        self.below = below
        self.settled = settled
        self.users = 0
        self.twin = False
        """The same layer was there before: our folder goes."""
        self.lent = False
        """The folder is another layer's."""
        self.lease = ExitStack()


class LayerSnapshots:
    """`folder` is on the layers' file system. `packers` bounds how many layers are digested at a time."""

    def __init__(
        self,
        folder: Path,
        *,
        driver: StorageDriver,
        layers: LayerStore,
        trash: Trash,
        supervisor: Supervisor,
        packers: int = max(2, os.cpu_count() or 1),
    ) -> None:
        self._folder = folder
        self._driver = driver
        self._layers = layers
        self._trash = trash
        self._supervisor = supervisor
        self._slots = asyncio.Semaphore(packers)
        self._pending: dict[str, _Pending] = {}
        self._next = 1
        self._stacks = itertools.count(1)

    def open(self) -> None:
        """What a build that was cut short has left goes."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for entry in list(self._folder.iterdir()):
            self._driver.unmount(str(entry))
            self._driver.discard(str(entry))
            self._trash.put(entry)

    # -- the seam -----------------------------------------------------------------------------------
    def of_image(self, image: ImageRecord | None) -> Files:
        chains = chain_ids(image.layers) if image is not None else ()
        return Files(id=chains[-1], layers=chains) if chains else SCRATCH

    @contextlib.asynccontextmanager
    async def work(self, files: Files) -> AsyncIterator[LayerWork]:
        folder = self._folder / str(self._next)
        self._next += 1
        with self.hold(files):
            work = LayerWork(self, self._driver, folder, files, self._paths(files.layers))
            try:
                with told_when_full("the build"):
                    await in_thread(work.mount)
                    yield work
            finally:
                try:
                    await in_thread(work.close)
                finally:  # also of a build that is cancelled once more
                    self._trash.put(folder)
                    self._trash.wake()

    @contextlib.asynccontextmanager
    async def shown(self, files: Files) -> AsyncIterator[str]:
        async with self.work(files) as work:
            yield work.root

    @contextlib.contextmanager
    def hold(self, files: Files) -> Iterator[None]:
        pending = [layer for layer in files.layers if layer in self._pending]
        known = [layer for layer in files.layers if not layer.startswith(STEP)]
        with self._layers.hold(known):
            for layer in pending:
                self._pending[layer].users += 1
            try:
                yield
            finally:
                for layer in pending:
                    self._pending[layer].users -= 1
                    self._forget(layer)

    def hold_layers(self, chains: Sequence[str]) -> AbstractContextManager[None]:
        """Until the block ends these settled layers stay."""
        return self._layers.hold(chains)

    @contextlib.asynccontextmanager
    async def stacked(self, files: Files, linked: Files, ident: str) -> AsyncIterator[Files]:
        if not files.layers:
            made = Files(id=ident, layers=linked.layers)
        else:
            made = Files(id=ident, layers=(*files.layers, self._over(files.layers, linked.layers[0], ident)))
        with self.hold(made):
            if len(set(paths := self._paths(made.layers))) < len(paths):  # overlayfs takes a directory once
                pending = self._of(made.layers[-1])
                chain, _ = await asyncio.shield(pending.settled)
                pending.folder = Path(self._layers.path(chain)).parent
            yield made

    async def settled(self, files: Files) -> Sequence[tuple[str, str]]:
        return [await self._settled(layer) for layer in files.layers]

    async def _settled(self, layer: str) -> tuple[str, str]:
        """(chain id, diff id)."""
        if layer.startswith(STEP):
            return await asyncio.shield(self._of(layer).settled)
        known = self._layers.get(layer)
        if known is None:
            raise Damaged(
                f"layer {layer[7:19]} is missing", hint="Build again; nothing of it is in the cache"
            )
        return known.chain, known.diff

    # -- kept steps ---------------------------------------------------------------------------------
    def adopt(self, folder: Path, files: Files, ident: str, ready: Result | None) -> Files:
        """The step's files lie in `folder`, over `files`; `ready` if they are digested already."""
        layer = f"{STEP}{ident}"
        pending = self._begun(layer, folder, files.layers)
        self._supervisor.start(layer, lambda: self._pack(layer, pending, ready))
        return Files(id=ident, layers=(*files.layers, layer))

    def _begun(self, layer: str, folder: Path, below: tuple[str, ...]) -> _Pending:
        settled: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()
        settled.add_done_callback(lambda done: done.cancelled() or done.exception())  # may be nobody's
        pending = self._pending[layer] = _Pending(folder, below, settled)
        return pending

    def _over(self, below: tuple[str, ...], layer: str, ident: str) -> str:
        """A layer's name over others."""
        top = self._layers.get(layer)
        if top is not None and not below[-1].startswith(STEP):
            known = self._layers.get(over(below[-1], top.diff))
            if known is not None and known.packed.digest:
                return known.chain
        name = f"{STEP}{ident}.{next(self._stacks)}"
        pending = self._begun(name, Path(self._paths((layer,))[0]).parent, below)
        pending.lent = True
        pending.lease.enter_context(self.hold(Files(id="", layers=(*below, layer))))
        self._supervisor.start(name, lambda: self._stack(name, pending, layer))
        return name

    async def _stack(self, name: str, pending: _Pending, layer: str) -> None:
        with self._settling(name, pending):
            kept, diff = await self._settled(layer)
            below = [chain for chain, _ in await self.settled(Files(id="", layers=pending.below))]
            chain = over(below[-1], diff)
            pending.lease.enter_context(self._layers.hold((kept, chain, *below)))
            blob = self._layers.blob(kept)
            if blob is None:
                raise Damaged(f"layer {kept[7:19]} has no blob", hint="Build again with --no-cache")
            async with self._slots:
                with told_when_full("the build"):
                    part = Part(path=str(blob[1]))
                    await self._layers.unpack(part, chain, diff, below=below, packed=blob[0])
            pending.settled.set_result((chain, diff))

    def reserve(self) -> Path:
        return self._layers.reserve()

    def throw(self, folder: Path) -> None:
        self._layers.throw(folder)

    async def digested(
        self, folder: Path, changed: Changed | None = None, lower: Sequence[str] = ()
    ) -> Result:
        async with self._slots:
            with told_when_full("the build"):
                return await self._layers.packed(folder, changed, lower)

    async def _pack(self, layer: str, pending: _Pending, ready: Result | None) -> None:
        with self._settling(layer, pending):
            result = ready or await self.digested(pending.folder)
            below = await self._settled(pending.below[-1]) if pending.below else ("", "")
            chain = over(below[0], result.diff_id)
            pending.lease.enter_context(self._layers.hold((chain,)))
            with told_when_full("the build"):
                pending.twin = not await self._layers.adopt(pending.folder, chain, result)
            pending.settled.set_result((chain, result.diff_id))

    @contextlib.contextmanager
    def _settling(self, layer: str, pending: _Pending) -> Iterator[None]:
        """How it ends, for those who wait for it."""
        try:
            yield
        except asyncio.CancelledError:
            pending.settled.cancel()
            raise
        except Exception as error:
            pending.twin = True
            pending.settled.set_exception(error)
        finally:
            self._forget(layer)

    def _forget(self, layer: str) -> None:
        """When nobody needs it and it is done."""
        pending = self._pending.get(layer)
        if pending is None or pending.users or not pending.settled.done():
            return
        del self._pending[layer]
        if pending.twin and not pending.lent:
            self._layers.throw(pending.folder)
        pending.lease.close()

    def _of(self, layer: str) -> _Pending:
        if layer not in self._pending:
            raise Damaged(f"the layer of step {layer[5:17]} is gone", hint="Build again")
        return self._pending[layer]

    def _paths(self, layers: Sequence[str]) -> list[str]:
        """Directories of layers, bottom first."""
        return [
            str(self._of(layer).folder / "fs") if layer.startswith(STEP) else self._layers.path(layer)
            for layer in layers
        ]


class LayerWork:
    """See `image.build.base.Work`."""

    def __init__(
        self,
        snapshots: LayerSnapshots,
        driver: StorageDriver,
        folder: Path,
        files: Files,
        paths: Sequence[str],
    ) -> None:
        self._snapshots = snapshots
        self._driver = driver
        self._folder = str(folder)
        self._files = files
        self._paths = paths
        self._root = os.path.join(self._folder, "root")

    @property
    def root(self) -> str:
        return self._root

    def mount(self) -> None:
        self._driver.prepare(self._folder, self._paths)
        self._root = self._driver.mount(self._folder, self._paths)

    def close(self) -> None:
        self._driver.unmount(self._folder)
        self._driver.discard(self._folder)

    async def keep(self, ident: str, discarded: Sequence[str] = (), latest: int | None = None) -> Files:
        if discarded:
            discarded = await in_thread(self._led_to, discarded)
        folder = self._snapshots.reserve()
        upper = self._driver.upper(self._folder)
        result: Result | None = None
        kept = False
        try:
            if upper:
                await in_thread(self._move, upper, folder, discarded, latest)
            else:
                inner = tuple(path.strip("/") for path in discarded)
                changed = Changed(path=self._root, whole=True, discarded=inner, latest=latest)
                result = await self._snapshots.digested(folder, changed, tuple(reversed(self._paths)))
            files = self._snapshots.adopt(folder, self._files, ident, result)
            kept = True
            return files
        finally:
            if not kept:
                self._snapshots.throw(folder)

    def _led_to(self, paths: Sequence[str]) -> list[str]:
        return [settled_path(self._root, path) for path in paths]

    def _move(self, upper: str, folder: Path, discarded: Sequence[str], latest: int | None) -> None:
        self._driver.unmount(self._folder)
        tidy(upper, tuple(reversed(self._paths)), discarded)
        if latest is not None:
            age(upper, latest)
        folder.mkdir(mode=0o700)
        os.rename(upper, folder / "fs")
