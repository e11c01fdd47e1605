"""The store's file from an older schema to this one: death at each statement, a full disk, the way back."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from controller.snapshot import Cluster
from controller.store import sqlite_dump
from controller.store.sqlite import SqliteStore
from controller.store.sqlite_file import put_all
from controller.store.sqlite_schema import APPLICATION_ID, FIRST, SCHEMA, copies
from model.errors import NotFound, Unavailable, Unsupported
from model.version import VERSION
from tests.component.test_store_sqlite import service

ROOT = Path(__file__).resolve().parents[2]
DYING = """
import os, signal, sqlite3, sys
from pathlib import Path
from controller.store import sqlite_file
left = int(sys.argv[2])
real = sqlite3.connect
def count(statement):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
def connect(*args, **options):
    made = real(*args, **options)
    made.set_trace_callback(count)
    return made
sqlite3.connect = connect
sqlite_file.Database.open(Path(sys.argv[1]))[0].close()
"""
"""Opens a store, and is killed when sqlite is about to run the statement of that number."""
FULL = """
import resource, sys
from pathlib import Path
from controller.store import sqlite_file
from model.errors import FlotaError
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    sqlite_file.Database.open(Path(sys.argv[1]))
except FlotaError as error:
    print(f"{error.code}: {error.message}")
"""


def of_schema_1(path: Path, count: int = 20) -> Cluster:
    """A file as the first flota made it; what is in it."""
    records = [service(f"s{n}", revision=n + 1) for n in range(count)]
    cluster = Cluster().apply(records, (), count)[0]
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in FIRST:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 1")
    put_all(connection, cluster, 7)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    return cluster


def schema(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        found: int = connection.execute("PRAGMA user_version").fetchone()[0]
        return found
    finally:
        connection.close()


async def opened(folder: Path) -> Cluster:
    store = await SqliteStore.open(folder)
    await store.close()
    return store.snapshot()


async def test_migration_keeps_every_record_and_a_copy_of_before(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    before = of_schema_1(path)
    assert await opened(tmp_path) == before
    assert schema(path) == SCHEMA
    (copy,) = copies(path)
    assert copy.name == f"store.db.before-{SCHEMA}"
    assert (schema(copy), copy.stat().st_mode & 0o777) == (1, 0o600)
    assert sqlite_dump.read(copy.read_bytes(), "copy") == (before, 7)
    assert await opened(tmp_path) == before


def test_migration_killed_at_any_statement_leaves_the_old_schema_or_the_new(tmp_path: Path) -> None:
    seen, number = set[int](), 0
    while True:
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / "store.db"
        before = of_schema_1(path, 3)
        done = subprocess.run([sys.executable, "-c", DYING, str(path), str(number)], cwd=ROOT, check=False)
        at = schema(path)
        seen.add(at)
        connection = sqlite3.connect(path)
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        connection.close()
        assert ("history" in tables) is (at == SCHEMA), f"between, after {number} statements"
        assert asyncio.run(opened(folder)) == before
        assert [p.name for p in copies(path)] == [f"store.db.before-{SCHEMA}"]
        assert not list(folder.glob("*.copying"))
        if done.returncode == 0:
            break
        number += 1
    assert seen == {1, SCHEMA} and number > 10


def test_migration_without_room_for_the_copy_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    before = of_schema_1(path, 400)
    room = path.stat().st_size // 2
    words = [sys.executable, "-c", FULL, str(path), str(room)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"unavailable: {path} can't be copied before it is migrated")
    assert (schema(path), copies(path)) == (1, [])
    assert sqlite_dump.read(path.read_bytes(), "it") == (before, 7)


async def test_newer_schema_is_refused_with_who_wrote_it_and_the_way_back(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    of_schema_1(path)
    await opened(tmp_path)
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO history VALUES (99, '9.9.9', 0)")
    connection.execute("PRAGMA user_version = 99")
    connection.commit()
    connection.close()
    with pytest.raises(Unsupported) as refusal:
        await opened(tmp_path)
    assert f"schema 99 of flota 9.9.9, this flota {VERSION} knows {SCHEMA}" in refusal.value.message
    assert "flota restore --before-upgrade" in refusal.value.hint


def test_put_back_file_is_not_followed_by_the_log_of_the_one_before(tmp_path: Path) -> None:
    """The one before was killed: its last writes are in its log alone."""
    path = tmp_path / "store.db"
    of_schema_1(path)
    pid = os.fork()
    if pid == 0:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("DELETE FROM records")
        os._exit(0)
    os.waitpid(pid, 0)
    assert (tmp_path / "store.db-wal").stat().st_size > 0
    wanted = Cluster().apply((service("only", revision=1),), (), 1)[0]
    kept = sqlite_dump.put_back(path, sqlite_dump.dump(wanted, 9))
    assert sqlite_dump.read(path.read_bytes(), "it") == (wanted, 9)
    assert not (tmp_path / "store.db-wal").exists()
    connection = sqlite3.connect(kept)
    assert connection.execute("SELECT count(*) FROM records").fetchone() == (0,)
    connection.close()


def test_way_back_without_a_copy_says_so(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    of_schema_1(path)
    with pytest.raises(NotFound, match="no copy from before an upgrade"):
        sqlite_dump.before_upgrade(path)
    (tmp_path / "store.db.before-9").write_bytes(b"nonsense")
    with pytest.raises(NotFound, match=r"this flota can read \(store.db.before-9\)"):
        sqlite_dump.before_upgrade(path)


def test_disk_full_is_no_reason_to_lose_the_copy_of_before(tmp_path: Path) -> None:
    from controller.store.sqlite_schema import keep_copy

    path = tmp_path / "store.db"
    of_schema_1(path)
    connection = sqlite3.connect(path)
    keep_copy(connection, path, 2)
    before = copies(path)[0].read_bytes()
    tmp_path.joinpath("store.db.copying").mkdir()
    with pytest.raises((Unavailable, OSError)):
        keep_copy(connection, path, 3)
    connection.close()
    assert copies(path)[0].read_bytes() == before
