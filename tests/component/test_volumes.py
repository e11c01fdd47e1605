"""Volumes: filled from images under those who use them, in turns, and gone on with after a crash."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from agent.journal import Journal
from agent.volumes import OWNER, Volumes
from model.spec import VolumeSpec
from model.status import VolumeReport
from tests.support.waiting import until

DATA = VolumeSpec(name="data")


class Host:
    """A folder of volumes that holds `data`, empty, and what an image has at its mount point."""

    def __init__(self, folder: Path, journal: Journal) -> None:
        self.folder = folder
        self.journal = journal
        self.volumes = Volumes(folder / "volumes", journal, dict)
        self.volumes.open()
        self.source = folder / "image"
        (self.source / "sub").mkdir(parents=True)
        (self.source / "file").write_text("of the image")
        (self.source / "sub/deep").write_text("deep")
        (self.source / "link").symlink_to("nowhere")
        self.source.chmod(0o2750)

    @property
    def place(self) -> Path:
        return self.folder / "volumes/data"

    @property
    def data(self) -> Path:
        return self.place / "_data"

    async def fill(self) -> None:
        await self.volumes.fill("data", str(self.source))

    def check_filled(self) -> None:
        assert sorted(os.listdir(self.data)) == ["file", "link", "sub"]
        assert (self.data / "sub/deep").read_text() == "deep"
        assert os.readlink(self.data / "link") == "nowhere"
        assert self.data.stat().st_mode & 0o7777 == 0o2750
        assert os.listdir(self.place) == ["_data"], "nothing else is left"
        assert not self.volumes._turns


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    journal = await Journal.open(tmp_path / "state")
    host = Host(tmp_path, journal)
    await host.volumes.create(DATA, 1.0)
    yield host
    await host.journal.close()


async def test_fill_under_a_running_container_keeps_the_directory_that_it_has(host: Host) -> None:
    mounted = os.open(host.data, os.O_RDONLY | os.O_DIRECTORY)
    try:
        await host.fill()
        host.check_filled()
        os.close(os.open("made inside", os.O_WRONLY | os.O_CREAT, dir_fd=mounted))
        assert os.listdir(mounted) == os.listdir(host.data)
        assert "made inside" in os.listdir(host.data)
    finally:
        os.close(mounted)


async def test_fill_by_two_at_once_is_done_once(host: Host) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(host.fill())
    host.check_filled()


async def test_fill_leaves_a_volume_alone_that_has_something(host: Host) -> None:
    (host.data / "own").write_text("")
    await host.fill()
    assert os.listdir(host.data) == ["own"]


async def test_fill_from_an_empty_directory_takes_its_mode(host: Host, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    empty.chmod(0o1777)
    await host.volumes.fill("data", str(empty))
    assert host.data.stat().st_mode & 0o7777 == 0o1777 and os.listdir(host.data) == []


async def test_fill_after_a_crash_while_it_copied_begins_anew(host: Host) -> None:
    (host.place / "_copy").mkdir()
    (host.place / "_copy/half").write_text("")
    await host.fill()
    host.check_filled()


async def test_fill_after_a_crash_between_its_renames_goes_on(host: Host) -> None:
    await host.fill()
    ready = host.place / "_ready"
    ready.mkdir()
    ready.chmod(0o2750)
    host.data.chmod(0o755)
    os.rename(host.data / "sub", ready / "sub")
    (ready / "file").write_text("of the image")
    (host.data / "file").write_text("of a container")
    await host.fill()
    host.check_filled()
    assert (host.data / "file").read_text() == "of a container", "what was written meanwhile stays"


class FirstHeld(ThreadPoolExecutor):
    """Its first call waits for the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.held = False
        self.gate = threading.Event()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **words: Any) -> Future[Any]:
        if self.held:
            return super().submit(fn, *args, **words)
        self.held = True

        def later() -> Any:
            self.gate.wait(10)
            return fn(*args, **words)

        return super().submit(later)


async def test_volume_made_again_while_it_is_removed_stands_and_is_known(host: Host, tmp_path: Path) -> None:
    executor = FirstHeld()
    asyncio.get_running_loop().set_default_executor(executor)
    async with asyncio.TaskGroup() as group:
        group.create_task(host.volumes.remove("data"))
        await until(lambda: executor.held, deadline=5)
        making = group.create_task(host.volumes.create(DATA, 2.0))
        await asyncio.wait([making], timeout=0.1)  # it has its chance to overtake
        executor.gate.set()
    assert Path(host.volumes.path("data")).is_dir()
    await host.journal.close()
    host.journal = await Journal.open(tmp_path / "state")
    assert host.journal.read("volume", VolumeReport).keys() == {"data"}


async def test_anonymous_volume_has_its_labels_and_stays_its_containers(host: Host) -> None:
    made = await host.volumes.anonymous("c" * 64, "/d", 1.0, {"a": "b", OWNER: "somebody"})
    assert made.labels == {"a": "b", OWNER: "c" * 64}
    assert (await host.volumes.anonymous("c" * 64, "/d", 2.0)).name == made.name
    await host.volumes.remove_anonymous("c" * 64)
    assert made not in host.volumes.all()
