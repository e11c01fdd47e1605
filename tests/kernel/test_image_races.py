"""Pulls, loads, imports, removals and roots at once, some cancelled midway, whatever the order: nothing used
vanishes, nothing unused stays."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from image.drivers.overlay import OverlayDriver
from image.registry.client import RegistryClient
from image.store import ImageStore
from model.errors import InUse, NotFound
from tests.support.images import Built, chunks, docker_archive, image, member, tar
from tests.support.registry import FakeRegistry, serving
from tests.support.waiting import until

pytestmark = pytest.mark.kernel

LAYERS = [tar(member(f"layer-{number}", str(number).encode())) for number in range(4)]
STACKS = [[0], [0, 1], [0, 1, 2], [3], [0, 3]]
WORKERS, STEPS = 6, 12


def built(number: int) -> Built:
    return image([LAYERS[layer] for layer in STACKS[number]])


class Chaos:
    """One seed's worth of work on one store."""

    def __init__(self, store: ImageStore, registry: FakeRegistry, seed: int, folder: Path) -> None:
        self.store = store
        self.folder = folder
        self.registry = registry
        self.random = random.Random(seed)
        self.roots = 0

    async def worker(self) -> None:
        acts = [self.load, self.pull, self.pull, self.imported, self.remove, self.prune, self.root]
        acts += [self.free, self.save, self.push, self.leased]
        for _ in range(STEPS):
            act = self.random.choice(acts)
            try:
                if self.random.random() < 0.3:
                    await self.interrupted(act)
                else:
                    await act()
            except (NotFound, InUse):
                continue

    async def interrupted(self, act: Callable[[], Awaitable[None]]) -> None:
        async def work() -> None:
            await act()

        task = asyncio.ensure_future(work())
        await asyncio.wait([task], timeout=self.random.random() * 0.2)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return

    async def load(self) -> None:
        number = self.random.randrange(len(STACKS))
        layers = [LAYERS[layer] for layer in STACKS[number]]
        await self.store.load(chunks(docker_archive(built(number), layers, names=[f"loaded{number}"])))

    async def pull(self) -> None:
        await self.store.pull(f"{self.registry.host}/app:{self.random.randrange(len(STACKS))}")

    async def imported(self) -> None:
        number = self.random.randrange(len(LAYERS))
        await self.store.import_tar(chunks(LAYERS[number]), ref=f"imported{number}")

    async def remove(self) -> None:
        images = self.store.list()
        if images:
            await self.store.remove(self.random.choice(images).id, force=True)

    async def prune(self) -> None:
        await self.store.prune(all_unused=self.random.random() < 0.5)

    async def free(self) -> None:
        await self.store.free(self.random.randrange(1 << 20), spare={}, unused_for=0)

    async def save(self) -> None:
        """An archive that was begun is whole, whatever is removed meanwhile."""
        images = self.store.list()
        if images:
            record = self.random.choice(images)
            data = b"".join([piece async for piece in self.store.save([record.id])])
            assert data.endswith(bytes(1024)) and record.id[7:].encode() in data

    async def push(self) -> None:
        images = [image for image in self.store.list() if image.names]
        if images:
            record = self.random.choice(images)
            name = f"{self.registry.host}/sent:{record.id[7:19]}"
            await self.store.tag(record.id, name)
            await self.store.push(name)

    async def leased(self) -> None:
        """Its layers are on disk to the lease's end."""
        images = self.store.list()
        if not images:
            return
        record = self.random.choice(images)
        with self.store.lease(record.id):
            for _ in range(3):
                await self.store.prune(all_unused=True)
                assert set(record.layers) <= self.on_disk()
                await asyncio.sleep(0.01)

    def on_disk(self) -> set[str]:
        """Diff ids of the layers that are there."""
        markers = (self.folder / "layers").glob("[0-9]*/link")
        return {json.loads(marker.read_bytes())["diff"] for marker in markers}

    async def root(self) -> None:
        """A container's life: its root is whole from the first to the last moment."""
        images = self.store.list()
        if not images:
            return
        record = self.random.choice(images)
        self.roots += 1
        name = f"c{self.roots}"
        try:
            await self.store.prepare_root(name, record.id)
            root = await self.store.mount_root(name)
            for _ in range(3):
                assert len(os.listdir(root.path)) == len(record.layers)
                await asyncio.sleep(0.02)
        finally:
            await self.store.remove_root(name)


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    fake = FakeRegistry()
    for number in range(len(STACKS)):
        fake.push(built(number), str(number))
    async with serving(fake) as served:
        yield served


def made(folder: Path) -> ImageStore:
    return ImageStore(folder, driver_choice=(OverlayDriver(), "test"), source=RegistryClient())


@pytest.mark.parametrize("seed", range(3))
async def test_everything_at_once_leaves_exactly_what_is_used(
    tmp_path: Path, registry: FakeRegistry, seed: int
) -> None:
    store = made(tmp_path / "images")
    await store.open()
    chaos = Chaos(store, registry, seed, tmp_path / "images")
    layers = tmp_path / "images/layers"

    def used() -> int:
        stacks = {record.layers[: n + 1] for record in store.list() for n in range(len(record.layers))}
        return len(stacks)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(chaos.worker())
        assert store.roots() == []
        await until(lambda: len(os.listdir(layers)) == used(), deadline=5, what="unused layers gone")
        await until(lambda: os.listdir(tmp_path / "images/trash") == [], deadline=5)
        assert os.listdir(tmp_path / "images/tmp") == []
        records = {record.id: record for record in store.list()}
    finally:
        await store.close()
    again = made(tmp_path / "images")
    await again.open()
    try:
        assert {record.id: record for record in again.list()} == records
        assert len(os.listdir(layers)) == used()
        for number, record in enumerate(again.list()):
            await again.prepare_root(f"r{number}", record.id)
            root = await again.mount_root(f"r{number}")
            assert len(os.listdir(root.path)) == len(record.layers)
            await again.remove_root(f"r{number}")
        await again.prune(all_unused=True)
        assert os.listdir(layers) == []
    finally:
        await again.close()
