"""Layers that may not be on disk yet: whoever needs them there waits, however they came."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from image.arrival import Arrival
from image.digest import of
from image.layers import Layer, LayerStore
from image.layertar import Changed
from image.packed import Packed
from image.part import Part
from image.trash import Trash
from image.unpack import Job, Result
from image.unpacking import Transit
from tests.support.waiting import until

CHAIN = of(b"layer")


class Layers(LayerStore):
    """What is unpacked is one file. `finishing`: the thread that gives a layer its place has begun; it goes
    on when `finish` is set."""

    def __init__(self, folder: Path) -> None:
        trash = Trash(folder / "trash")
        trash.open()
        super().__init__(folder / "layers", trash)
        self.open()
        self.finishing, self.finish = threading.Event(), threading.Event()
        self.finish.set()

    @contextlib.asynccontextmanager
    async def _unpacked(
        self, job: Job, *, keep: bool = True, transit: Transit | None = None
    ) -> AsyncIterator[tuple[Path, Result]]:
        work = self._folder / f"tmp-{self._next}"
        self._next += 1
        (work / "fs").mkdir(parents=True)
        (work / "fs/file").write_bytes(b"x")
        (work / "implied").touch()
        yield work, Result(diff_id=CHAIN, packed=Packed(digest=CHAIN))

    def _finish(self, work: Path, layer: Layer, durable: bool = True) -> None:
        self.finishing.set()
        self.finish.wait(20)
        super()._finish(work, layer, durable)


async def pulled(layers: Layers) -> Layer:
    async def below() -> None:
        return

    transit = Transit(Arrival(1), below, asyncio.Semaphore())
    return await layers.unpack(Part(path=""), CHAIN, CHAIN, packed=Packed(digest=CHAIN), transit=transit)


async def waits(layers: Layers) -> bool:
    """Whether somebody who needs the layer on disk has to wait; nothing is written back here."""
    flushed = asyncio.ensure_future(layers.flushed((CHAIN,)))
    await asyncio.wait([flushed], timeout=0.05)
    return flushed.cancel()


async def imported(layers: Layers) -> None:
    async with layers.root_layer(Path()):
        return


async def committed(layers: Layers) -> None:
    async with layers.changed(Changed(path=""), ()):
        return


async def test_layer_whose_puller_left_in_its_last_moment_is_written_back(tmp_path: Path) -> None:
    layers = Layers(tmp_path)
    layers.finish.clear()
    first = asyncio.ensure_future(pulled(layers))
    await until(layers.finishing.is_set, deadline=10)
    first.cancel()
    second = asyncio.ensure_future(pulled(layers))
    layers.finish.set()
    assert (await second).boot, "the first one's: it is known though its puller has left"
    await asyncio.wait([first])
    assert first.cancelled() and await waits(layers)


@pytest.mark.parametrize("make", [imported, committed])
async def test_layer_made_here_that_a_pull_brought_already_is_waited_for(
    tmp_path: Path, make: Callable[[Layers], Awaitable[None]]
) -> None:
    layers = Layers(tmp_path)
    await make(layers)
    assert not await waits(layers), "one that is new is on disk"
    layers = Layers(tmp_path / "other")
    await pulled(layers)
    made = asyncio.ensure_future(make(layers))
    done, _ = await asyncio.wait([made], timeout=0.5)
    assert not done
    made.cancel()
    await asyncio.wait([made])
