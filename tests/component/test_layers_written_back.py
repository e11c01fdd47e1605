"""Layers on their way to the disk: which of them a write of the file system has brought there."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aio.supervisor import Supervisor
from image.writeback import Writeback
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
