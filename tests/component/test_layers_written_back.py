"""Layers on their way to the disk: which of them a write of the file system has brought there."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from aio.supervisor import Supervisor
from image.writeback import Writeback
from model.errors import Exhausted
from tests.support.waiting import until


class SlowDisk(Writeback):
    """Each write of the file system waits until the test lets it end."""

    def __init__(self, folder: Path) -> None:
        self.settled: list[str] = []
        self.writes: list[asyncio.Event] = []
        super().__init__(folder, self.settled.append)

    async def _sync(self) -> None:
        self.writes.append(asyncio.Event())
        await self.writes[-1].wait()


async def test_layer_pulled_again_during_a_write_waits_for_the_next(tmp_path: Path) -> None:
    async with Supervisor("test") as supervisor:
        disk = SlowDisk(tmp_path)
        disk.start(supervisor)
        disk.put("again")
        disk.put("once")
        await until(lambda: len(disk.writes) == 1, deadline=5)
        disk.put("again")  # removed and pulled anew: its files may have come after the write began
        disk.writes[0].set()
        await until(lambda: len(disk.writes) == 2, deadline=5)
        assert disk.settled == ["once"]
        flushed = asyncio.ensure_future(disk.flushed(["again"]))
        await disk.flushed(["once"])
        assert not flushed.done()
        disk.writes[1].set()
        await flushed
        assert disk.settled == ["once", "again"]


async def test_layer_that_cannot_be_marked_on_a_full_disk_is_told_and_marked_later(tmp_path: Path) -> None:
    marked, full = list[str](), True

    def mark(chain: str) -> None:
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        marked.append(chain)

    class Disk(Writeback):
        writes = 0

        async def _sync(self) -> None:
            self.writes += 1

    async with Supervisor("test") as supervisor:
        disk = Disk(tmp_path, mark, again=0.05)
        disk.start(supervisor)
        disk.put("layer")
        async with asyncio.timeout(10):
            with pytest.raises(Exhausted, match="no space"):
                await disk.flushed(["layer"])
        full = False
        await until(lambda: marked == ["layer"], deadline=10)
        await disk.flushed(["layer"])
        assert disk.writes == 1, "what is on disk is not brought there again"
