"""Unpacked layers on disk, one directory per chain id, shared by every image and container that has them.

    layers/<n>/fs       the files          layers/<n>/link   marker: complete; holds what `Layer` does
    layers/<n>/blob     as it travels      layers/tmp-*      half-made; thrown away at start

Directories have short numeric names, as mount options are bounded (overlayfs takes one page of them by
mount(2)). Invariant: a layer with its marker is complete and on disk (syncfs before the marker, rename of
the marker last).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import logging
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from aio.durable import sync_folder, write_file
from aio.subprocess import run
from aio.supervisor import in_thread
from image.digest import check, over
from image.layertar import Changed
from image.leases import Leases
from image.packed import Packed
from image.part import Part
from image.trash import Trash
from image.unpack import Job, Result
from model.errors import Damaged, Internal
from model.spec import Struct

_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS, _FS_TOPDIR_FL = 0x80086601, 0x40086602, 0x00020000
UNPACK_DEADLINE = 3600.0
MAX_BYTES, MAX_FILES = 1 << 38, 4_000_000
RESERVE = 64 << 20
"""Bytes that stay free whatever a layer holds."""
log = logging.getLogger("flota.image")
_libc = ctypes.CDLL(None, use_errno=True)


class Layer(Struct):
    chain: str
    diff: str
    size: int = 0
    number: int = 0
    packed: Packed = Packed()
    """The blob beside it; without a digest in a layer of an older release, which has none."""

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

    def open(self) -> None:
        """Read the markers; what has none was half-made and goes."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _spread_inodes(self._folder)
        for entry in list(self._folder.iterdir()):
            layer = _marked(entry)
            if layer is None:
                self._trash.put(entry)
            else:
                self._layers[layer.chain] = layer
                self._next = max(self._next, layer.number + 1)

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
    ) -> Layer:
        """Make the layer from its blob; `below` are the chain ids under it, bottom first, already here.
        `packed` says that the blob is a file of its own, verified, which may be linked to. Concurrent calls
        for one layer share the work. Raises Damaged, Exhausted; nothing is left of a failed one."""
        async with self._alone(chain):
            have = self._layers.get(chain)
            if have is not None and have.packed.digest:
                return have
            lower = tuple(self.path(other) for other in reversed(below))
            job = Job(source=blob, target="", diff_id=diff, lower=lower)
            async with self._unpacked(job, keep=packed is None) as (work, result):
                if packed is not None:
                    await in_thread(os.link, blob.path, work / "blob")
                if have is not None:  # unpacked all the same: a stranger says that the blob is this layer's
                    await in_thread(self._complete, have, str(work / "blob"), packed or result.packed)
                    return self._layers[chain]
                layer = Layer(
                    chain=chain,
                    diff=result.diff_id,
                    size=result.size,
                    number=_number(work),
                    packed=packed or result.packed,
                )
                await in_thread(self._finish, work, layer)
            return layer

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
                yield layer

    @contextlib.asynccontextmanager
    async def changed(self, changed: Changed, below: Sequence[str]) -> AsyncIterator[Layer]:
        """As `unpack`, of what a container changed over the layers `below`: its digest is found out. It is
        held until the block ends."""
        lower = tuple(self.path(other) for other in reversed(below))
        async with self._unpacked(Job(changed=changed, target="", lower=lower)) as (work, result):
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
                yield layer

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
    async def _unpacked(self, job: Job, *, keep: bool = True) -> AsyncIterator[tuple[Path, Result]]:
        """A fresh folder with the unpacked layer; it is thrown away unless it has been given its place."""
        work = self._folder / f"tmp-{self._next}"
        self._next += 1
        try:
            place = {"target": str(work / "fs"), "keep": str(work / "blob") if keep else ""}
            job = msgspec.structs.replace(job, **place, **_limits(self._folder))
            yield work, await _unpack(job)
        finally:
            self._trash.put(work)
            self._trash.wake()

    def _finish(self, work: Path, layer: Layer) -> None:
        """Everything on disk, then the marker, then the name. The layer is known when this returns, also to a
        caller who was cancelled meanwhile."""
        folder = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if _libc.syncfs(folder) != 0:
                raise OSError(ctypes.get_errno(), f"syncfs of layer {layer.number}")
            marker = os.open(work / "link", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.write(marker, msgspec.json.encode(layer))
                os.fsync(marker)
            finally:
                os.close(marker)
            os.fsync(folder)
        finally:
            os.close(folder)
        os.rename(work, self._folder / str(layer.number))
        sync_folder(self._folder)
        self._layers[layer.chain] = layer


async def _unpack(job: Job) -> Result:
    """In a process of its own: unpacking is bound by the CPU, and its input is a stranger's."""
    Path(job.target).mkdir(mode=0o755, parents=True)
    argv = [sys.executable, "-P", "-m", "image.unpack"]
    env = {"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": os.environ.get("PATH", "")}
    done = await run(argv, deadline=UNPACK_DEADLINE, stdin=msgspec.json.encode(job), env=env)
    try:
        result = msgspec.json.decode(done.stdout, type=Result)
    except msgspec.DecodeError:
        words = done.stderr.decode(errors="replace").strip()[-300:]
        if done.code < 0:
            raise Damaged(f"the layer's unpacking was killed by signal {-done.code}") from None
        raise Internal(f"the layer's unpacking failed: {words}") from None
    if result.error is not None:
        raise result.error.to_error()
    return result


def _limits(folder: Path) -> dict[str, int]:
    """How much one layer may take: what is free, less a reserve, so that a bomb ends before the disk does."""
    free = os.statvfs(folder)
    room = (free.f_bavail * 95 // 100 - RESERVE // free.f_frsize) * free.f_frsize
    files = free.f_favail * 95 // 100 if free.f_files else MAX_FILES
    return {"max_bytes": max(min(room, MAX_BYTES), 0), "max_files": min(files, MAX_FILES)}


def _marked(folder: Path) -> Layer | None:
    """The layer in `folder`, if it is complete."""
    if not folder.name.isdigit():
        return None
    try:
        layer = msgspec.json.decode((folder / "link").read_bytes(), type=Layer)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        log.warning("layer %s has an unreadable marker and is dropped: %s", folder, error)
        return None
    return layer if layer.number == int(folder.name) else None


def _number(work: Path) -> int:
    return int(work.name.removeprefix("tmp-"))


def _spread_inodes(folder: Path) -> None:
    """chattr +T: ext4 puts each layer into block groups of its own. Without it, files created soon after many
    were deleted near by cost twenty times as much (inodes stay `recently_deleted`). Other systems refuse."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = bytearray(8)
        fcntl.ioctl(fd, _FS_IOC_GETFLAGS, flags)
        value = int.from_bytes(flags[:4], "little") | _FS_TOPDIR_FL
        fcntl.ioctl(fd, _FS_IOC_SETFLAGS, value.to_bytes(8, "little"))
    except OSError:
        return
    finally:
        os.close(fd)
