"""The small parts of the image store: shared work, the trash, blobs, the catalog, spooling."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from aio.deletion import deletion
from aio.supervisor import Supervisor
from image.blobs import BlobStore
from image.catalog import Catalog, Entry
from image.digest import of
from image.flights import Flights, Say
from image.layers import LayerStore
from image.leases import Leases
from image.outbound import Outbound
from image.registry.source import NoSource
from image.spool import spool
from image.trash import Trash
from model.errors import Damaged, Exhausted, NotFound
from model.image import ImageRecord, Progress
from tests.support.images import chunks
from tests.support.waiting import until


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    async with Supervisor("test") as supervisor:
        yield supervisor


class Work:
    """A piece of work that waits to be let go."""

    def __init__(self) -> None:
        self.runs = 0
        self.cancelled = 0
        self.go = asyncio.Event()

    async def __call__(self, say: Say) -> int:
        self.runs += 1
        say(Progress(status=f"run {self.runs}"))
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        say(Progress(status="end"))
        return self.runs


# -- flights --------------------------------------------------------------------------------------------
async def test_flight_is_flown_once_for_all_who_wait(supervisor: Supervisor) -> None:
    flights: Flights[int] = Flights(supervisor)
    work, heard = Work(), ([], [])  # type: tuple[Work, tuple[list[str], list[str]]]
    async with asyncio.TaskGroup() as group:
        joined = [
            group.create_task(flights.join("a", work, lambda p, h=h: h.append(p.status))) for h in heard
        ]
        await until(lambda: work.runs, deadline=5)
        work.go.set()
    assert [task.result() for task in joined] == [1, 1]
    assert [lines[-1] for lines in heard] == ["end", "end"]
    assert await flights.join("a", work, lambda p: None) == 2


async def test_flight_is_cancelled_when_the_last_has_left(supervisor: Supervisor) -> None:
    flights: Flights[int] = Flights(supervisor)
    work = Work()
    tasks = [asyncio.ensure_future(flights.join("a", work, lambda p: None)) for _ in range(2)]
    await until(lambda: work.runs, deadline=5)
    tasks[0].cancel()
    await asyncio.wait([tasks[0]])
    assert work.cancelled == 0
    tasks[1].cancel()
    await asyncio.wait([tasks[1]])
    assert work.cancelled == 1
    work.go.set()
    assert await flights.join("a", work, lambda p: None) == 2


async def test_flight_that_fails_fails_for_all_and_can_start_again(supervisor: Supervisor) -> None:
    flights: Flights[int] = Flights(supervisor)
    go = asyncio.Event()

    async def fail(say: Say) -> int:
        await go.wait()
        raise Damaged("broken")

    tasks = [asyncio.ensure_future(flights.join("a", fail, lambda p: None)) for _ in range(3)]
    await asyncio.sleep(0)
    go.set()
    await asyncio.wait(tasks)
    assert [type(task.exception()) for task in tasks] == [Damaged] * 3
    work = Work()
    work.go.set()
    assert await flights.join("a", work, lambda p: None) == 1


async def test_flight_joined_in_the_moment_of_its_end_flies_again(supervisor: Supervisor) -> None:
    """One that wakes after the work's last step, and before the loop has put the flight away."""
    flights: Flights[int] = Flights(supervisor)
    ending, runs = asyncio.Event(), 0

    async def work(say: Say) -> int:
        nonlocal runs
        runs += 1
        ending.set()
        return runs

    async def newcomer() -> int:
        await ending.wait()
        return await flights.join("a", work, lambda p: None)

    waiting = [asyncio.ensure_future(newcomer()) for _ in range(2)]
    await asyncio.sleep(0)
    assert await flights.join("a", work, lambda p: None) == 1
    assert await asyncio.gather(*waiting) == [2, 2]


async def test_flight_cancelled_before_its_first_step_can_start_again(supervisor: Supervisor) -> None:
    flights: Flights[int] = Flights(supervisor)
    work = Work()
    asyncio.get_running_loop().call_soon(supervisor.cancel, "a")
    with pytest.raises(asyncio.CancelledError):
        await flights.join("a", work, lambda p: None)
    assert work.runs == 0
    work.go.set()
    assert await flights.join("a", work, lambda p: None) == 1


async def test_flight_being_cancelled_takes_nobody_and_the_next_starts_after_its_end(
    supervisor: Supervisor,
) -> None:
    flights: Flights[str] = Flights(supervisor)
    events, clean = [], asyncio.Event()

    async def slow(say: Say) -> str:
        events.append("begins")
        try:
            await asyncio.Event().wait()
        finally:
            await clean.wait()
            events.append("is cleaned up")
        return ""

    async def next_one(say: Say) -> str:
        events.append("next begins")
        return "next"

    left = asyncio.ensure_future(flights.join("a", slow, lambda p: None))
    await until(lambda: events, deadline=5)
    left.cancel()
    newcomers = [asyncio.ensure_future(flights.join("a", next_one, lambda p: None)) for _ in range(2)]
    for _ in range(5):
        await asyncio.sleep(0)
    clean.set()
    assert await asyncio.gather(*newcomers) == ["next", "next"]
    assert events == ["begins", "is cleaned up", "next begins"]
    await asyncio.wait([left])


async def test_flight_ends_with_its_supervisor(supervisor: Supervisor) -> None:
    flights: Flights[int] = Flights(supervisor)
    work = Work()
    task = asyncio.ensure_future(flights.join("a", work, lambda p: None))
    await until(lambda: work.runs, deadline=5)
    await supervisor.close()
    with pytest.raises(asyncio.CancelledError):
        await task


# -- trash ----------------------------------------------------------------------------------------------
def full_tree(path: Path) -> Path:
    (path / "a/b/c").mkdir(parents=True)
    (path / "a/file").touch()
    (path / "a/link").symlink_to("/")
    (path / "a/folder-link").symlink_to(path.parent / "victim")
    os.mkfifo(path / "pipe")
    return path


async def test_trash_is_gone_at_once_and_deleted_by_and_by(supervisor: Supervisor, tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/file").touch()
    trash = Trash(tmp_path / "trash")
    trash.open()
    trash.start(supervisor)
    tree = full_tree(tmp_path / "tree")
    trash.put(tree)
    trash.put(tmp_path / "never there")
    assert not tree.exists()
    trash.wake()
    await until(lambda: os.listdir(tmp_path / "trash") == [], deadline=5)
    assert (tmp_path / "victim/file").exists()


async def test_trash_of_before_a_crash_goes_after_the_start(supervisor: Supervisor, tmp_path: Path) -> None:
    full_tree(tmp_path / "trash/7")
    (tmp_path / "trash/file").touch()
    trash = Trash(tmp_path / "trash")
    trash.open()
    trash.put(full_tree(tmp_path / "tree"))
    assert "8" in os.listdir(tmp_path / "trash")
    trash.start(supervisor)
    await until(lambda: os.listdir(tmp_path / "trash") == [], deadline=5)


async def test_trash_that_cannot_be_deleted_keeps_nobody_waiting(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    def delete(path: Path) -> Iterator[None]:
        if path.name == "1":
            raise PermissionError(errno.EPERM, "it is immutable", str(path))
        return deletion(path)

    trash = Trash(tmp_path / "trash", delete)
    trash.open()
    for name in ("immutable", "other"):
        trash.put(full_tree(tmp_path / name))
    trash.wake()
    trash.start(supervisor)
    async with asyncio.timeout(5):
        await trash.emptied()
    assert os.listdir(tmp_path / "trash") == ["1"]


def test_deletion_goes_in_steps(tmp_path: Path) -> None:
    steps = deletion(full_tree(tmp_path / "tree"))
    next(steps)
    assert (tmp_path / "tree").exists()
    assert list(steps) and not (tmp_path / "tree").exists()


# -- blobs, catalog -------------------------------------------------------------------------------------
def test_blob_is_verified_whenever_it_is_read(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path / "blobs")
    blobs.open([])
    digest = blobs.put(b"content")
    assert (digest, blobs.get(digest)) == (of(b"content"), b"content")
    (tmp_path / "blobs" / digest[7:]).write_bytes(b"c0ntent")
    with pytest.raises(Damaged):
        blobs.get(digest)
    for _ in range(2):
        blobs.remove(digest)
    with pytest.raises(NotFound):
        blobs.get(digest)


def test_blobs_half_written_or_unwanted_go_at_start(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    keep, drop = blobs.put(b"keep"), blobs.put(b"drop")
    (tmp_path / (drop[7:] + ".new")).touch()
    BlobStore(tmp_path).open([keep])
    assert os.listdir(tmp_path) == [keep[7:]]


@pytest.mark.parametrize("left", ["7", "tmp-7"])
def test_number_of_a_half_made_layer_is_not_given_again(tmp_path: Path, left: str) -> None:
    """A process of whoever made it may live a moment longer, and write there yet."""
    (tmp_path / "layers" / left).mkdir(parents=True)
    trash = Trash(tmp_path / "trash")
    trash.open()
    layers = LayerStore(tmp_path / "layers", trash)
    layers.open()
    assert not (tmp_path / "layers" / left).exists()
    assert layers.reserve().name == "8"


def entry(number: int, *names: str) -> Entry:
    return Entry(record=ImageRecord(id=of(str(number).encode()), names=names), chains=())


def test_catalog_is_read_back_and_names_are_unique(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "images.json")
    catalog.open()
    catalog.put(entry(1, "docker.io/library/a:latest"), entry(2, "docker.io/library/b:latest"))
    catalog.put(entry(3, "docker.io/library/a:latest"))
    again = Catalog(tmp_path / "images.json")
    again.open()
    assert again.entries == catalog.entries
    assert again.find("a").record.id == of(b"3")
    assert again.find(of(b"1")).record.names == ()
    again.drop(of(b"2"), of(b"3"))
    with pytest.raises(NotFound):
        again.find("b")


def test_catalog_half_written_is_the_one_before(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "images.json")
    catalog.put(entry(1))
    (tmp_path / "images.new").write_bytes(b"{half")
    again = Catalog(tmp_path / "images.json")
    again.open()
    assert list(again.entries) == [of(b"1")]


# -- spool ----------------------------------------------------------------------------------------------
async def test_spooled_stream_is_a_file_for_as_long_as_it_is_needed(tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    async with spool(chunks(data), tmp_path, limit=4 << 20) as path:
        assert path.read_bytes() == data
    assert os.listdir(tmp_path) == []


async def test_stream_beyond_its_limit_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Exhausted, match="more than"):
        async with spool(chunks(bytes(3 << 20)), tmp_path, limit=2 << 20):
            raise AssertionError("it does not begin")
    assert os.listdir(tmp_path) == []


async def test_stream_that_fails_leaves_nothing(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        async with spool(broken(), tmp_path, limit=10):
            raise AssertionError("it does not begin")
    assert os.listdir(tmp_path) == []


# -- outbound -------------------------------------------------------------------------------------------
async def test_image_whose_manifest_an_older_release_threw_away_is_saved_under_a_new_one(
    tmp_path: Path,
) -> None:
    catalog, configs = Catalog(tmp_path / "images.json"), BlobStore(tmp_path / "configs")
    configs.open(())
    ident = configs.put(b'{"architecture": "amd64", "os": "linux"}')
    catalog.put(Entry(record=ImageRecord(id=ident), chains=(), manifest=of(b"gone")))
    layers = LayerStore(tmp_path / "layers", Trash(tmp_path / "trash"))
    outbound = Outbound(catalog=catalog, configs=configs, layers=layers, source=NoSource(), leases=Leases())
    data = b"".join([piece async for piece in outbound.save([ident])])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        index = json.load(archive.extractfile("index.json"))  # type: ignore[arg-type]
        made = json.load(archive.extractfile(f"blobs/sha256/{index['manifests'][0]['digest'][7:]}"))  # type: ignore[arg-type]
    assert made["config"]["digest"] == ident and made["layers"] == []
