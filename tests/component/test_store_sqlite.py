"""The embedded store's file: restarts, a second controller, damage, and death in the middle of a write."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from controller.snapshot import Cluster
from controller.store.base import Txn
from controller.store.sqlite import SqliteStore
from controller.store.sqlite_file import FolderLock
from model.errors import Damaged, Exhausted, FlotaError, Internal, InUse, Unavailable, Unsupported
from model.ids import ServiceId
from model.records import Service
from model.spec import ContainerSpec, ServiceSpec

ROOT = Path(__file__).resolve().parents[2]
WRITER = """
import asyncio, sys
from controller.store.base import Txn
from controller.store.sqlite import SqliteStore
from tests.component.test_store_sqlite import service

async def main():
    store = await SqliteStore.open(sys.argv[1])
    epoch = await store.lead()
    start = int(sys.argv[2])
    async def one(number):
        await store.commit(Txn(puts=(service(f"s{number}"), service(f"t{number}")), epoch=epoch))
        sys.stdout.write(f"{number}\\n"); sys.stdout.flush()
    for base in range(start, start + 100000, 20):
        await asyncio.gather(*(one(n) for n in range(base, base + 20)))
asyncio.run(main())
"""
FIRST_START = """
import asyncio, resource, sys
from controller.store.sqlite import SqliteStore
from model.errors import FlotaError
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    asyncio.run(SqliteStore.open(sys.argv[1]))
except FlotaError as error:
    print(f"{error.code}: {error.message}")
"""


def service(name: str, revision: int = 0) -> Service:
    spec = ServiceSpec(name=name, container=ContainerSpec(image="x" * 200))
    return Service(id=ServiceId(name.rjust(64, "0")), spec=spec, revision=revision)


async def filled(folder: Path, count: int = 50) -> None:
    store = await SqliteStore.open(folder)
    epoch = await store.lead()
    for number in range(count):
        await store.commit(Txn(puts=(service(f"s{number}"),), epoch=epoch))
    await store.close()


async def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    await filled(tmp_path)
    store = await SqliteStore.open(tmp_path)
    assert len(store.snapshot().services) == 50
    assert store.snapshot().revision == 50
    assert await store.lead() == 2
    await store.close()


async def test_second_controller_on_one_folder_is_refused_at_once(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path)
    with pytest.raises(InUse, match=f"pid {os.getpid()}"):
        await SqliteStore.open(tmp_path)
    await store.close()
    await (await SqliteStore.open(tmp_path)).close()


async def test_commit_after_close_is_refused(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path)
    await store.close()
    with pytest.raises(Unavailable):
        await store.commit(Txn(puts=(service("a"),)))


async def test_record_that_can_not_be_written_fails_alone(tmp_path: Path) -> None:
    """Whatever comes with it in one group is written, and so is all that comes later."""
    store = await SqliteStore.open(tmp_path)
    epoch = await store.lead()
    bad = replace(service("bad"), generation=10**20)
    txns = [Txn(puts=(one,), epoch=epoch) for one in (service("a"), bad, service("b"))]
    async with asyncio.timeout(30):
        found = await asyncio.gather(*(store.commit(txn) for txn in txns), return_exceptions=True)
        mixed = Txn(puts=(service("c"), bad), epoch=epoch)
        with pytest.raises(Internal, match="can't write this"):
            await store.commit(mixed)
        assert await store.commit(Txn(puts=(service("d"),), epoch=epoch)) == 3
    assert [type(one) for one in found] == [int, Internal, int]
    await store.close()
    store = await SqliteStore.open(tmp_path)
    assert sorted(s.spec.name for s in store.snapshot().services.values()) == ["a", "b", "d"]
    await store.close()


class Unforeseen:
    """A file that fails in a way of which nobody has thought."""

    def group(self) -> None:
        raise RuntimeError("never seen before")

    def close(self) -> None:
        return None


async def test_writer_that_meets_the_unforeseen_refuses_all_and_can_be_closed(tmp_path: Path) -> None:
    database: Any = Unforeseen()
    store = SqliteStore(tmp_path / "store.db", FolderLock(tmp_path), database, Cluster())
    async with asyncio.timeout(30):
        for _ in range(2):
            with pytest.raises(Unavailable, match="store failed: never seen before"):
                await store.commit(Txn(puts=(service("a"),)))
        with pytest.raises(Unavailable, match="store failed"):
            await store.beat()  # the watchdog hears no more of it
        await store.close()


class Full:
    """A file whose disk has no room for one page more."""

    def group(self) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorname = "SQLITE_FULL"
        raise error

    def close(self) -> None:
        return None


async def test_heart_beats_on_while_the_disk_is_full(tmp_path: Path) -> None:
    """Else the watchdog ends a controller that works, and can't be started again before there is room."""
    database: Any = Full()
    store = SqliteStore(tmp_path / "store.db", FolderLock(tmp_path), database, Cluster())
    async with asyncio.timeout(30):
        commit = asyncio.ensure_future(store.commit(Txn(puts=(service("a"),))))
        await asyncio.gather(*(store.beat() for _ in range(20)))
        with pytest.raises(Exhausted, match="full"):
            await commit
        await store.close()


async def test_flipped_byte_anywhere_in_the_records_is_found(tmp_path: Path) -> None:
    await filled(tmp_path)
    path = tmp_path / "store.db"
    data = bytearray(path.read_bytes())
    at = data.rindex(b"xxxxxxxx")
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(Damaged) as refusal:
        await SqliteStore.open(tmp_path)
    assert "restore" in refusal.value.hint
    assert path.read_bytes() == bytes(data)


@pytest.mark.parametrize("damage", ["truncate", "garbage", "header"])
async def test_damaged_file_is_refused_and_left_as_it_is(tmp_path: Path, damage: str) -> None:
    await filled(tmp_path)
    path = tmp_path / "store.db"
    data = path.read_bytes()
    broken = {"truncate": data[:5000], "garbage": os.urandom(8192), "header": b"\0" * 100 + data[100:]}[
        damage
    ]
    path.write_bytes(broken)
    with pytest.raises(FlotaError):
        await SqliteStore.open(tmp_path)
    assert path.read_bytes() == broken


async def test_foreign_database_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "store.db")
    connection.execute("CREATE TABLE t (x)")
    connection.commit()
    connection.close()
    with pytest.raises(Damaged, match="not a flota store"):
        await SqliteStore.open(tmp_path)


async def test_newer_schema_is_refused(tmp_path: Path) -> None:
    await filled(tmp_path, 1)
    connection = sqlite3.connect(tmp_path / "store.db")
    connection.execute("PRAGMA user_version = 99")
    connection.commit()
    connection.close()
    with pytest.raises(Unsupported, match="schema 99"):
        await SqliteStore.open(tmp_path)


async def test_missing_file_beside_its_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.db-wal").write_bytes(b"x")
    with pytest.raises(Damaged, match="missing"):
        await SqliteStore.open(tmp_path)


@pytest.mark.parametrize("room", [1024, 4096, 8192])
async def test_first_start_that_runs_out_of_disk_leaves_nothing_in_the_way_of_the_next(
    tmp_path: Path, room: int
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FIRST_START, str(tmp_path), str(room), stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    said, _ = await asyncio.wait_for(process.communicate(), 30)
    assert said.decode().startswith(f"unavailable: {tmp_path}/store.db can't be made: ")
    await filled(tmp_path, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "store.db"]


async def test_empty_file_is_refused_as_damaged(tmp_path: Path) -> None:
    (tmp_path / "store.db").touch()
    with pytest.raises(Damaged, match="not a flota store"):
        await SqliteStore.open(tmp_path)
    assert (tmp_path / "store.db").read_bytes() == b""


async def test_killed_in_the_middle_of_commits_loses_no_acknowledged_one(tmp_path: Path) -> None:
    acknowledged: set[int] = set()
    for round_ in range(5):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            WRITER,
            str(tmp_path),
            str(round_ * 200_000),
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        assert process.stdout is not None
        fresh = 0
        while fresh < 40 + 37 * round_:
            line = await asyncio.wait_for(process.stdout.readline(), 30)
            assert line.endswith(b"\n"), "the writer ended by itself"
            acknowledged.add(int(line))
            fresh += 1
        process.send_signal(signal.SIGKILL)
        rest = (await process.stdout.read()).decode().split("\n")[:-1]
        acknowledged.update(int(line) for line in rest)
        await process.wait()
        store = await SqliteStore.open(tmp_path)
        found = {s.spec.name for s in store.snapshot().services.values()}
        await store.close()
        assert {f"s{n}" for n in acknowledged} <= found
        halves = {n[1:] for n in found if n[0] == "s"} ^ {n[1:] for n in found if n[0] == "t"}
        assert not halves, "a transaction is there in part"
