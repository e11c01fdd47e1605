"""Unpacked layers on disk, one directory per chain id, shared by every image and container that has them.

    layers/<n>/fs       the files          layers/<n>/link   marker: complete; holds {chain, diff, size}
    layers/tmp-*        half-made; removed at start

Directories have short numeric names, as mount options are bounded (overlayfs takes one page of them by
mount(2)). Invariant: a layer with its marker is complete and on disk (syncfs before the marker, rename of
the marker last).
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from aio.subprocess import run
from aio.supervisor import in_thread
from image.digest import check
from image.unpack import Job, Result
from model.errors import Damaged, Internal
from model.spec import Struct

_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS, _FS_TOPDIR_FL = 0x80086601, 0x40086602, 0x00020000
UNPACK_DEADLINE = 3600.0
_libc = ctypes.CDLL(None, use_errno=True)


class Layer(Struct):
    chain: str
    diff: str
    size: int = 0
    number: int = 0


class LayerStore:
    """`folder` must be on a file system that overlayfs can use as a lower layer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._layers: dict[str, Layer] = {}
        self._next = 1
        self._busy: dict[str, asyncio.Lock] = {}

    def open(self) -> None:
        """Read the markers; what has none was half-made and goes."""
        self._folder.mkdir(mode=0o710, parents=True, exist_ok=True)
        _spread_inodes(self._folder)
        for entry in list(self._folder.iterdir()):
            marker = entry / "link"
            if entry.name.isdigit() and marker.exists():
                layer = msgspec.json.decode(marker.read_bytes(), type=Layer)
                self._layers[layer.chain] = layer
                self._next = max(self._next, layer.number + 1)
            else:
                shutil.rmtree(entry)

    def get(self, chain: str) -> Layer | None:
        return self._layers.get(chain)

    def path(self, chain: str) -> str:
        """Of the layer's files."""
        return str(self._folder / str(self._layers[chain].number) / "fs")

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._layers.values())

    async def unpack(self, blob: Path, chain: str, diff: str) -> Layer:
        """Make the layer from its blob. Concurrent calls for one layer share the work. Raises Damaged,
        Exhausted; nothing is left of a failed one."""
        lock = self._busy.setdefault(chain, asyncio.Lock())
        async with lock:
            if (have := self._layers.get(chain)) is not None:
                return have
            number = self._next
            self._next += 1
            work = self._folder / f"tmp-{number}"
            try:
                result = await self._unpack(Job(source=str(blob), target=str(work / "fs"), diff_id=diff))
                layer = Layer(chain=chain, diff=result.diff_id, size=result.size, number=number)
                await in_thread(self._finish, work, layer)
            except BaseException:
                await in_thread(shutil.rmtree, work, True)
                raise
            self._layers[chain] = layer
            return layer

    async def unpack_root(self, blob: Path) -> Layer:
        """As `unpack`, for a root file system tar: its digest is found out, it is its own chain."""
        number = self._next
        self._next += 1
        work = self._folder / f"tmp-{number}"
        try:
            result = await self._unpack(Job(source=str(blob), target=str(work / "fs"), whiteouts=False))
            chain = check(result.diff_id)
            if (have := self._layers.get(chain)) is not None:
                await in_thread(shutil.rmtree, work, True)
                return have
            layer = Layer(chain=chain, diff=chain, size=result.size, number=number)
            await in_thread(self._finish, work, layer)
        except BaseException:
            await in_thread(shutil.rmtree, work, True)
            raise
        self._layers[chain] = layer
        return layer

    async def remove(self, chain: str) -> None:
        """Forget it at once, delete its files by and by. The caller knows that nobody uses it."""
        layer = self._layers.pop(chain, None)
        if layer is not None:
            gone = self._folder / f"tmp-gone-{layer.number}"
            os.rename(self._folder / str(layer.number), gone)
            await in_thread(shutil.rmtree, gone, True)

    async def _unpack(self, job: Job) -> Result:
        Path(job.target).mkdir(mode=0o755, parents=True)
        argv = [sys.executable, "-m", "image.unpack"]
        done = await run(argv, deadline=UNPACK_DEADLINE, stdin=msgspec.json.encode(job))
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

    def _finish(self, work: Path, layer: Layer) -> None:
        """Everything on disk, then the marker, then the name."""
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
        parent = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)


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
