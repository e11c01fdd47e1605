"""Builds on two hosts, each with a real store: what one has done, the other takes from it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from image.blobs import BlobStore
from image.drivers.choice import choose
from image.peers.shelf import Shelf
from image.registry.source import NoSource
from image.store import ImageStore
from model.buildcache import CachePrune
from tests.support.buildstore import StoreLab
from tests.support.peerhosts import Fleet, PeerHost
from tests.support.waiting import until

pytestmark = pytest.mark.kernel
FILE = "FROM scratch\nCOPY a /a\nRUN one\nRUN two\n"


def put(path: str, data: str) -> None:
    Path(path).write_text(data)


class BuildHost(PeerHost):
    store: ImageStore

    def shelf(self) -> Shelf:
        folder = self.folder / "images"
        self.store = ImageStore(folder, driver_choice=choose(folder, ""), source=self.source)
        return self.store.shelf(BlobStore(self.folder / "indexes"))

    def tell(self) -> None:
        self.fleet.swarms.told(self.own, self.source.shelf.digests())

    def lab(self) -> StoreLab:
        found = StoreLab(
            self.store,
            one=lambda root: put(f"{root}/one", os.urandom(8).hex()),
            two=lambda root: put(f"{root}/two", os.urandom(8).hex()),
            three=lambda root: put(f"{root}/three", os.urandom(8).hex()),
        )
        found.runner.context["a"] = b"content"
        return found


@contextlib.asynccontextmanager
async def hosts(tmp_path: Path, count: int = 2) -> AsyncIterator[list[BuildHost]]:
    fleet = Fleet(tmp_path)
    async with contextlib.AsyncExitStack() as stack:
        made = [BuildHost(fleet, number + 1, NoSource()) for number in range(count)]
        for one in made:
            await one.store.open()
            stack.push_async_callback(one.store.close)
            one.store.share_builds(
                one.source, lambda told=one.tell: asyncio.get_running_loop().call_soon(told)
            )
            await stack.enter_async_context(one.serving())
        yield made


async def known(host: BuildHost, steps: int) -> None:
    """The controller knows so many of its steps."""
    records = host.source.shelf.records
    await until(lambda: len(list(records.keys())) == steps, deadline=20)
    await until(lambda: set(records.keys()) <= set(host.fleet.swarms._holding.get(host.own, ())), deadline=20)


async def test_build_that_a_host_has_done_is_done_on_no_other(tmp_path: Path) -> None:
    async with hosts(tmp_path) as (one, two):
        first = one.lab()
        image = await first.image(FILE)
        assert first.ran() == ["copy a", "one", "two"]
        await known(one, 3)
        second = two.lab()
        assert await second.image(FILE) == image
        assert second.ran() == []
        kept = two.store.build_cache.records
        assert {key: record.files.id for key, record in kept.items()} == {
            key: record.files.id for key, record in one.store.build_cache.records.items()
        }
        await known(two, 3)


async def test_build_goes_on_where_another_host_ended(tmp_path: Path) -> None:
    async with hosts(tmp_path, 3) as (one, two, three):
        await one.lab().image(FILE)
        await known(one, 3)
        second = two.lab()
        image = await second.image(FILE + "RUN three\n")
        assert second.ran() == ["three"]
        await known(two, 4)
        third = three.lab()
        assert await third.image(FILE + "RUN three\n") == image
        assert third.ran() == []


async def test_build_with_other_files_takes_nothing_from_another_host(tmp_path: Path) -> None:
    async with hosts(tmp_path) as (one, two):
        await one.lab().image(FILE)
        await known(one, 3)
        second = two.lab()
        second.runner.context["a"] = b"another"
        await second.image(FILE)
        assert second.ran() == ["copy a", "one", "two"]


async def test_build_without_cache_takes_nothing_from_another_host(tmp_path: Path) -> None:
    async with hosts(tmp_path) as (one, two):
        await one.lab().image(FILE)
        await known(one, 3)
        second = two.lab()
        await second.image(FILE, no_cache=True)
        assert second.ran() == ["copy a", "one", "two"]


@pytest.mark.parametrize("trouble", ["pruned", "controller", "host", "damaged"])
async def test_build_that_other_hosts_give_not_is_done_here(tmp_path: Path, trouble: str) -> None:
    async with hosts(tmp_path) as (one, two):
        await one.lab().image(FILE)
        await known(one, 3)
        if trouble == "pruned":
            for image in one.store.list():
                await one.store.remove(image.id, force=True)
            await one.store.build_cache.prune(CachePrune(all=True))
        elif trouble == "controller":
            one.fleet.away = True
        elif trouble == "host":
            one.fleet.places[one.own] = one.fleet.places[one.own].__class__(address="127.0.0.1", port=1)
        else:
            for record in one.store.build_cache.records.values():
                kept = one.store._layers.blob(record.files.layers[-1])
                assert kept is not None
                kept[1].write_bytes(b"\0" * kept[0].size)
        second = two.lab()
        await second.image(FILE)
        assert second.ran() == ["copy a", "one", "two"]
