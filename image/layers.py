"""Unpacked layers on disk, one directory per chain id, shared by every image and container that has them.

    layers/<n>/fs       the files          layers/<n>/link   marker: complete; holds what `Layer` does
    layers/<n>/blob     as it travels      layers/tmp-*      half-made; thrown away at start

Directories have short numeric names, as mount options are bounded (overlayfs takes one page of them by
mount(2)). Invariant: a layer with its marker is complete, and on disk (syncfs before the marker, rename of
the marker last) unless the marker names this boot of the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from aio.durable import sync_folder, write_file
from aio.supervisor import Supervisor, in_thread
from image import implied
from image.blockgroups import spread_inodes
from image.digest import check, over
from image.layertar import Changed
from image.leases import Leases
from image.lower import LowerLayers
from image.packed import Packed
from image.part import Part
from image.trash import Trash
from image.unpack import Job, Result
from image.unpacking import InVain, Transit, followed, limits, unpacked, workers
from image.writeback import Writeback, boot, to_disk
from model.codec import UNREADABLE
from model.errors import Damaged
from model.spec import Struct

log = logging.getLogger("flota.image")


class Layer(Struct):
    chain: str
    diff: str
    size: int = 0
    number: int = 0
    packed: Packed = Packed()
    """The blob beside it; without a digest in a layer of an older release, which has none."""
    boot: str = ""
    """While it may not be on disk yet: the boot of the machine whose page cache has it."""

    @property
    def on_disk(self) -> int:
        """Bytes, about: of its files and its blob."""
        return self.size + self.packed.size


class LayerStore:
    """`folder` must be on a file system that overlayfs can use as a lower layer."""

    def __init__(self, folder: Path, trash: Trash, leases: Leases | None = None) -> None:
        self._folder = folder
        self._trash = trash
        self._leases = leases or Leases()
        self._layers: dict[str, Layer] = {}
        self._next = 1
        self._busy: dict[str, asyncio.Lock] = {}
        self._waiting: Counter[str] = Counter()
        self._boot = ""
        self._workers = workers()
        self._writeback = Writeback(folder, self._settled)

    def open(self) -> None:
        """Read the markers; what has none was half-made and goes. Its number is not given again: what was
        killed may have left a process that writes there yet."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        spread_inodes(self._folder)
        self._boot = boot()
        for entry in list(self._folder.iterdir()):
            if (number := entry.name.removeprefix("tmp-")).isdigit():
                self._next = max(self._next, int(number) + 1)
            layer = _marked(entry)
            if layer is None or layer.boot not in ("", self._boot):
                self._trash.put(entry)
                continue
            self._layers[layer.chain] = layer

    def start(self, supervisor: Supervisor) -> None:
        """Begin to bring to disk what was pulled."""
        for chain, layer in self._layers.items():
            if layer.boot:
                self._writeback.put(chain)
        self._writeback.start(supervisor)

    async def close(self) -> None:
        """When nothing is unpacked any more."""
        await self._workers.close()

    async def flushed(self, chains: Sequence[str]) -> None:
        """Until these layers are on disk. Raises Damaged when it fails."""
        await self._writeback.flushed(chains)

    def get(self, chain: str) -> Layer | None:
        return self._layers.get(chain)

    def path(self, chain: str) -> str:
        """Of the layer's files. Raises Damaged when the layer is gone."""
        layer = self._layers.get(chain)
        if layer is None:
            raise Damaged(f"layer {chain[7:19]} is missing", hint="Pull or load its image again")
        return str(self._folder / str(layer.number) / "fs")

    def blob(self, chain: str) -> tuple[Packed, Path] | None:
        """The layer as it travels, and the file that holds it."""
        layer = self._layers.get(chain)
        if layer is None or not layer.packed.digest:
            return None
        return layer.packed, self._folder / str(layer.number) / "blob"

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._layers.values())

    def hold(self, chains: Sequence[str]) -> contextlib.AbstractContextManager[None]:
        """Until the block ends these layers stay, whether or not an image refers to them already."""
        return self._leases.hold(chains)

    async def unpack(
        self,
        blob: Part,
        chain: str,
        diff: str,
        *,
        below: Sequence[str] = (),
        packed: Packed | None = None,
        transit: Transit | None = None,
    ) -> Layer:
        """Make the layer from its blob; `below` are the chain ids under it, bottom first, already here.
        `packed` says that the blob is a file of its own, verified, which may be linked to. Concurrent calls
        for one layer share the work. With `transit` neither the blob nor the layers below need be here yet,
        and the layer may reach the disk later. Raises Damaged, Exhausted; nothing is left of a failed one."""
        async with self._alone(chain):
            have = self._layers.get(chain)
            if have is not None and have.packed.digest:
                return have
            if transit is not None:
                with contextlib.suppress(InVain):
                    return await self._make(blob, chain, diff, below, packed, have, transit)
                await transit.below()
            return await self._make(blob, chain, diff, below, packed, have, None)

    async def _make(
        self,
        blob: Part,
        chain: str,
        diff: str,
        below: Sequence[str],
        packed: Packed | None,
        have: Layer | None,
        transit: Transit | None,
    ) -> Layer:
        job = Job(source=blob, target="", diff_id=diff)
        if transit is None:
            job = msgspec.structs.replace(job, lower=self._paths(below))
        async with self._unpacked(job, keep=packed is None, transit=transit) as (work, result):
            packed = packed or result.packed
            if not result.packed.digest:
                await in_thread(os.link, blob.path, work / "blob")
            if have is not None:  # unpacked all the same: a stranger says that the blob is this layer's
                await in_thread(self._complete, have, str(work / "blob"), packed)
                return self._layers[chain]
            if transit is not None:
                await transit.below()
                await in_thread(_settle, work, self._paths(below))
            layer = Layer(
                chain=chain, diff=result.diff_id, size=result.size, number=_number(work), packed=packed
            )
            try:
                await in_thread(self._finish, work, layer, transit is None)
            finally:  # a caller who was cancelled meanwhile may not be the only one who wants it
                if transit is not None and chain in self._layers:
                    self._writeback.put(chain)
            return self._layers[chain]

    def _paths(self, below: Sequence[str]) -> tuple[str, ...]:
        """Of layers, top first."""
        return tuple(self.path(other) for other in reversed(below))

    def _complete(self, layer: Layer, blob: str, packed: Packed) -> None:
        """Give a layer of an older release its blob."""
        folder = self._folder / str(layer.number)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(folder / "blob")
        os.link(blob, folder / "blob")
        with open(folder / "blob", "rb") as file:
            os.fsync(file.fileno())  # before the marker that says that it is there
        whole = msgspec.structs.replace(layer, packed=packed)
        write_file(folder / "link", msgspec.json.encode(whole))
        self._layers[layer.chain] = whole

    @contextlib.asynccontextmanager
    async def root_layer(self, blob: Path) -> AsyncIterator[Layer]:
        """As `unpack`, for a root file system tar: its digest is found out, it is its own chain. It is held
        until the block ends."""
        job = Job(source=Part(path=str(blob)), target="", whiteouts=False)
        async with self._unpacked(job) as (work, result):
            chain = check(result.diff_id)
            with self.hold((chain,)):
                async with self._alone(chain):
                    layer = self._layers.get(chain)
                    if layer is None:
                        layer = Layer(
                            chain=chain,
                            diff=chain,
                            size=result.size,
                            number=_number(work),
                            packed=result.packed,
                        )
                        await in_thread(self._finish, work, layer)
                    elif not layer.packed.digest:
                        await in_thread(self._complete, layer, str(work / "blob"), result.packed)
                        layer = self._layers[chain]
                await self.flushed((chain,))  # it may have been here, of a pull
                yield layer

    @contextlib.asynccontextmanager
    async def changed(self, changed: Changed, below: Sequence[str]) -> AsyncIterator[Layer]:
        """As `unpack`, of what a container changed over the layers `below`: its digest is found out. It is
        held until the block ends."""
        async with self._unpacked(Job(changed=changed, target="", lower=self._paths(below))) as (
            work,
            result,
        ):
            chain = over(below[-1] if below else "", check(result.diff_id))
            with self.hold((chain,)):
                async with self._alone(chain):
                    layer = self._layers.get(chain)
                    if layer is None:
                        layer = Layer(
                            chain=chain,
                            diff=result.diff_id,
                            size=result.size,
                            number=_number(work),
                            packed=result.packed,
                        )
                        await in_thread(self._finish, work, layer)
                await self.flushed((chain,))  # it may have been here, of a pull
                yield layer

    # -- layers of steps of a build, made in their place ---------------------------------------------
    def reserve(self) -> Path:
        """A new layer's folder, which the caller makes; it is half-made until it is adopted."""
        folder = self._folder / str(self._next)
        self._next += 1
        return folder

    async def packed(self, folder: Path, changed: Changed | None = None, lower: Sequence[str] = ()) -> Result:
        """Make the blob of the layer whose files are in `folder`; or those too, of what a driver without an
        upper directory has `changed` over the directories `lower`, top first. Raises Damaged, Exhausted."""
        target = str(folder / "fs")
        job = Job(changed=changed or Changed(path=target), target=target if changed else "")
        place = {"lower": tuple(lower), "keep": str(folder / "blob")}
        job = msgspec.structs.replace(job, **place, **limits(self._folder))
        return await unpacked(self._workers, job)

    async def adopt(self, folder: Path, chain: str, result: Result) -> bool:
        """The layer is complete; it reaches the disk by and by. False: there is one with that chain already.
        To be held."""
        async with self._alone(chain):
            if chain in self._layers:
                return False
            layer = Layer(
                chain=chain,
                diff=result.diff_id,
                size=result.size,
                number=int(folder.name),
                packed=result.packed,
                boot=self._boot,
            )
            await in_thread((folder / "link").write_bytes, msgspec.json.encode(layer))
            self._layers[chain] = layer
            self._writeback.put(chain)
            return True

    def throw(self, folder: Path) -> None:
        """A reserved folder that is not wanted."""
        self._trash.put(folder)
        self._trash.wake()

    @contextlib.asynccontextmanager
    async def _alone(self, chain: str) -> AsyncIterator[None]:
        """One at a time for one layer."""
        lock = self._busy.setdefault(chain, asyncio.Lock())
        self._waiting[chain] += 1
        try:
            async with lock:
                yield
        finally:
            self._waiting[chain] -= 1
            if not self._waiting[chain]:
                del self._busy[chain], self._waiting[chain]

    def collect(self, used: Callable[[str], bool]) -> int:
        """Throw away the layers that nobody holds or uses; the bytes that they had on disk."""
        gone = [chain for chain in self._layers if not used(chain) and not self._leases.keeps(chain)]
        freed = 0
        for chain in gone:
            layer = self._layers.pop(chain)
            freed += layer.on_disk
            self._trash.put(self._folder / str(layer.number))
        self._trash.wake()
        return freed

    @contextlib.asynccontextmanager
    async def _unpacked(
        self, job: Job, *, keep: bool = True, transit: Transit | None = None
    ) -> AsyncIterator[tuple[Path, Result]]:
        """A fresh folder with the unpacked layer; it is thrown away unless it has been given its place."""
        work = self._folder / f"tmp-{self._next}"
        self._next += 1
        try:
            place = {"target": str(work / "fs"), "keep": str(work / "blob") if keep else ""}
            job = msgspec.structs.replace(job, **place, **limits(self._folder))
            if transit is None:
                yield work, await unpacked(self._workers, job)
            else:
                job = msgspec.structs.replace(job, implied=str(work / "implied"))
                yield work, await followed(self._workers, job, transit)
        finally:
            self._trash.put(work)
            self._trash.wake()

    def _finish(self, work: Path, layer: Layer, durable: bool = True) -> None:
        """Everything on disk, then the marker, then the name. The layer is known when this returns, also to a
        caller who was cancelled meanwhile. If not `durable`, it is on disk once it is written back."""
        if durable:
            to_disk(work)
            write_file(work / "link", msgspec.json.encode(layer))
        else:
            layer = msgspec.structs.replace(layer, boot=self._boot)
            (work / "link").write_bytes(msgspec.json.encode(layer))
        os.rename(work, self._folder / str(layer.number))
        if durable:
            sync_folder(self._folder)
        self._layers[layer.chain] = layer

    def _settled(self, chain: str) -> None:
        """Its files are on disk."""
        layer = self._layers.get(chain)
        if layer is None or not layer.boot:
            return
        whole = msgspec.structs.replace(layer, boot="")
        try:
            write_file(self._folder / str(layer.number) / "link", msgspec.json.encode(whole))
        except FileNotFoundError:  # thrown away meanwhile
            return
        if chain in self._layers:
            self._layers[chain] = whole


def _settle(work: Path, lower: Sequence[str]) -> None:
    """What the layer implies takes over what the layers below say."""
    layers = LowerLayers(lower)
    top = os.open(work / "fs", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        implied.settle(top, implied.read(work / "implied"), layers)
    finally:
        os.close(top)
        layers.close()
    (work / "implied").unlink()


def _marked(folder: Path) -> Layer | None:
    """The layer in `folder`, if it is complete."""
    if not folder.name.isdigit():
        return None
    try:
        layer = msgspec.json.decode((folder / "link").read_bytes(), type=Layer)
    except FileNotFoundError:
        return None
    except UNREADABLE as error:
        log.warning("layer %s has an unreadable marker and is dropped: %s", folder, error)
        return None
    return layer if layer.number == int(folder.name) else None


def _number(work: Path) -> int:
    return int(work.name.removeprefix("tmp-"))
