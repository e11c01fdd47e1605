"""The file behind the embedded store: its schema, its checks, its transactions. Called from one thread.

Invariant: what `open` returns was verified (page structure, each record's checksum and type); every write is
inside a group that ends with one fsync.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import msgspec

from aio.durable import sync_folder
from controller.snapshot import TYPES, Cluster, Kind, key_of
from controller.store.base import Conflict, Txn
from controller.store.sqlite_schema import HINT, check_header, create, migrate
from model.codec import decode_wire, encode_wire
from model.errors import Damaged, InUse, InvalidInput, Unavailable, Unsupported
from model.records import Record, Revision

PUT = (
    "INSERT INTO records VALUES (?, ?, ?, ?, ?) ON CONFLICT (kind, key) DO UPDATE SET"
    " revision = excluded.revision, checksum = excluded.checksum, data = excluded.data"
)


class FolderLock:
    """One controller per folder: an flock that the kernel drops when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        """Raises InUse, naming the holder, at once."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._fd, 32, 0).decode(errors="replace").strip()
            os.close(self._fd)
            raise InUse(
                f"another controller uses {folder}" + (f" (pid {holder})" if holder else ""),
                hint="Stop it first, or give this one its own folder",
            ) from error
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._fd)


class Database:
    def __init__(self, connection: sqlite3.Connection, revision: Revision, epoch: int) -> None:
        self._connection = connection
        self._revision = revision
        self._epoch = epoch

    @classmethod
    def open(cls, path: Path) -> tuple[Database, Cluster]:
        """Make the file if there is none; otherwise verify and read it."""
        if not path.exists():
            if path.with_name(path.name + "-wal").exists():
                raise Damaged(f"{path} is missing, but its write-ahead log is there", hint=HINT)
            _make(path)
        try:
            return cls._open(path)
        except sqlite3.Error as error:
            raise Damaged(f"{path} can't be read: {error}", hint=HINT) from error

    @classmethod
    def _open(cls, path: Path) -> tuple[Database, Cluster]:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            path.chmod(0o600)
            check_header(connection, path)
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            migrate(connection, path)
            meta = dict(connection.execute("SELECT name, value FROM meta").fetchall())
            cluster = load(connection, path, meta["revision"])
            return cls(connection, meta["revision"], meta["epoch"]), cluster
        except KeyError as error:
            connection.close()
            raise Damaged(f"{path} has lost its revision", hint=HINT) from error
        except BaseException:
            connection.close()
            raise

    @contextlib.contextmanager
    def group(self) -> Iterator[None]:
        """Everything written inside becomes durable together, or not at all."""
        revision, epoch = self._revision, self._epoch
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("UPDATE meta SET value = ? WHERE name = 'revision'", (self._revision,))
            self._connection.execute("COMMIT")
        except BaseException:
            self._revision, self._epoch = revision, epoch
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def write(self, txn: Txn) -> Revision | Conflict:
        """One transaction of a group, behind its own savepoint."""
        conflict = self._conflict(txn)
        if conflict is not None:
            return conflict
        revision = self._revision + 1
        gone = [key_of(record) for record in txn.deletes]
        rows = [_row(record, revision) for record in txn.puts]
        self._connection.execute("SAVEPOINT txn")
        try:
            self._connection.executemany("DELETE FROM records WHERE kind = ? AND key = ?", gone)
            self._connection.executemany(PUT, rows)
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK TO txn")
                self._connection.execute("RELEASE txn")
            raise
        self._connection.execute("RELEASE txn")
        self._revision = revision
        return revision

    def raise_epoch(self) -> int:
        self._epoch += 1
        self._connection.execute("UPDATE meta SET value = ? WHERE name = 'epoch'", (self._epoch,))
        return self._epoch

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # a checkpoint that fails leaves the WAL, which is as good
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()

    def _conflict(self, txn: Txn) -> Conflict | None:
        if txn.epoch < self._epoch:
            return Conflict(key=None, expected=txn.epoch, found=self._epoch)
        for record in (*txn.checks, *txn.deletes, *txn.puts):
            key = key_of(record)
            row = self._connection.execute(
                "SELECT revision FROM records WHERE kind = ? AND key = ?", key
            ).fetchone()
            found = row[0] if row else 0
            if found != record.revision:
                return Conflict(key=key, expected=record.revision, found=found)
        return None


def _row(record: Record, revision: Revision) -> tuple[str, str, int, int, bytes]:
    kind, key = key_of(record)
    data = encode_wire(msgspec.structs.replace(record, revision=revision))
    return kind, key, revision, zlib.crc32(data), data


def put_all(connection: sqlite3.Connection, cluster: Cluster, epoch: int) -> None:
    """Fill an empty store, in one transaction; records keep their revisions."""
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(PUT, (_row(record, record.revision) for record in cluster.records()))
    values = [(cluster.revision, "revision"), (epoch, "epoch")]
    connection.executemany("UPDATE meta SET value = ? WHERE name = ?", values)
    connection.execute("COMMIT")


def _make(path: Path) -> None:
    """An empty store. It gets its name last, so that whatever ends us here, a file of that name is whole: one
    without its tables is damaged, and never taken for a new one. Raises Unavailable."""
    fresh = path.with_name(path.name + ".new")
    try:
        for left in (fresh, fresh.with_name(fresh.name + "-journal")):
            left.unlink(missing_ok=True)
        connection = sqlite3.connect(fresh, isolation_level=None)
        try:
            fresh.chmod(0o600)
            connection.execute("PRAGMA synchronous = FULL")
            create(connection)
        finally:
            connection.close()
        fresh.rename(path)
        sync_folder(path.parent)
    except (sqlite3.Error, OSError) as error:
        hint = "See that the folder can be written and its disk has room"
        raise Unavailable(f"{path} can't be made: {error}", hint=hint) from error


def load(connection: sqlite3.Connection, path: Path | str, revision: Revision) -> Cluster:
    """All records, verified. `path` is its name for people. Raises Damaged, Unsupported."""
    records: list[Record] = []
    for kind, key, checksum, data in connection.execute("SELECT kind, key, checksum, data FROM records"):
        if zlib.crc32(data) != checksum:
            raise Damaged(f"{path} is damaged: {kind} {key[:12]} does not match its checksum", hint=HINT)
        if kind not in TYPES:
            raise Unsupported(f"{path} holds a {kind!r}, which this flota does not know", hint=HINT)
        try:
            records.append(decode_wire(data, TYPES[cast(Kind, kind)]))
        except InvalidInput as error:
            raise Damaged(f"{path} is damaged: {kind} {key[:12]}: {error.message}", hint=HINT) from error
    return Cluster().apply(records, (), revision)[0]
