"""Layers that were pulled but may not be on disk yet, brought there by and by.

A pull need not wait for the disk: what a power loss takes can be pulled again. Until its files are on disk a
layer is marked with the boot of the machine whose page cache has them; in any other boot it counts as
half-made. What has no registry to come from again is waited for (`flushed`). Invariant: a layer whose marker
names no boot is on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from aio.subprocess import run
from aio.supervisor import Supervisor, in_thread
from image.full import FULL, HINT
from model.errors import CommandFailed, Damaged, DeadlineExceeded, Exhausted

BOOT = Path("/proc/sys/kernel/random/boot_id")
DEADLINE = 3600.0
AGAIN = 60.0
"""Seconds until a layer that could not be marked is tried again."""
FEW = 32
"""Files and directories that are quicker to sync one by one."""
log = logging.getLogger("flota.image")
_libc = ctypes.CDLL(None, use_errno=True)


class Writeback:
    """`folder` is on the layers' file system; `settled` says on disk that a layer, by its chain id, is there.
    It blocks, and raises OSError; then it is tried `again` after so many seconds."""

    def __init__(self, folder: Path, settled: Callable[[str], None], again: float = AGAIN) -> None:
        self._folder = folder
        self._settled = settled
        self._again = again
        self._pending: dict[str, object] = {}
        """To what a chain was put as: another under its name while the disk is written is not on it."""
        self._lost: set[str] = set()
        self._unmarked: dict[str, OSError] = {}
        """On disk, which their markers don't say yet."""
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()

    def start(self, supervisor: Supervisor) -> None:
        """Begin writing, also what is left from before."""
        supervisor.start("writeback", self._run, restart=True)

    def put(self, chain: str) -> None:
        """From the event loop's thread."""
        self._lost.discard(chain)
        self._unmarked.pop(chain, None)
        self._pending[chain] = object()
        self._filled.set()

    async def flushed(self, chains: Iterable[str]) -> None:
        """Until these are on disk, as far as they were put. Raises Damaged when the disk has failed,
        Exhausted when it is full."""
        wanted = set(chains)
        while wanted & self._pending.keys():
            await self._emptied.wait()
        if wanted & self._lost:
            raise Damaged("the disk failed to take the image's layers", hint="See the kernel's log")
        for error in (self._unmarked[chain] for chain in wanted & self._unmarked.keys()):
            if error.errno in FULL:
                raise Exhausted("no space is left on the disk for the image's layers", hint=HINT)
            raise Damaged(f"the image's layers can't be marked as complete: {error}")

    async def _run(self) -> None:
        while True:
            if not self._pending:
                self._filled.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._again if self._unmarked else None):
                        await self._filled.wait()
            await self._mark(chain for chain in list(self._unmarked) if chain in self._unmarked)
            if not (begun := dict(self._pending)):
                continue
            try:
                await self._sync()
            except (CommandFailed, DeadlineExceeded) as error:
                # told once: a later success would say nothing about these
                log.error("writing layers to disk failed: %s", error)
                self._lost.update(begun)
            else:
                await self._mark(self._same(begun))
            for chain in self._same(begun):
                del self._pending[chain]
            self._emptied.set()
            self._emptied = asyncio.Event()

    async def _mark(self, chains: Iterable[str]) -> None:
        """Their files are on disk."""
        for chain in chains:
            try:
                await in_thread(self._settled, chain)
            except OSError as error:  # most likely it is full
                if chain not in self._unmarked:
                    log.warning("layer %s can't be marked as on disk yet: %s", chain[7:19], error)
                self._unmarked[chain] = error
            else:
                self._unmarked.pop(chain, None)

    def _same(self, begun: dict[str, object]) -> Iterator[str]:
        return (chain for chain, put in begun.items() if self._pending.get(chain) is put)

    async def _sync(self) -> None:
        """syncfs in a program of its own: a thread that waits for a slow disk would hold up our end."""
        done = await run(["sync", "-f", str(self._folder)], deadline=DEADLINE)
        done.check()


def sync_file_system(folder: Path) -> None:
    """All that was written to the file system of `folder` is on disk when this returns. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(fd) != 0:
            raise OSError(ctypes.get_errno(), f"syncfs of {folder}")
    finally:
        os.close(fd)


def to_disk(folder: Path) -> None:
    """All that is below it. A few files are synced each for itself, as the file system waits for everybody's.
    Raises OSError."""
    paths = few(folder)
    if paths is None:
        sync_file_system(folder)
        return
    for path in paths:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def few(folder: Path) -> list[str] | None:
    """All files and directories, what is in one before it; None for many, or where there are other things,
    which can't be synced alone."""
    found: list[str] = []
    for base, folders, files in os.walk(folder, topdown=False):
        found += [os.path.join(base, name) for name in files]
        whole = all(stat.S_ISREG(os.lstat(path).st_mode) for path in found[len(found) - len(files) :])
        if not whole or any(os.path.islink(os.path.join(base, name)) for name in folders):
            return None
        found.append(base)
        if len(found) > FEW:
            return None
    return found


def boot() -> str:
    """Which boot of the machine this is."""
    return BOOT.read_text().strip()
