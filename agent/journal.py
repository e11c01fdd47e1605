"""The agent's journal: the last View, each instance's record, its volumes, its epoch; on sqlite.

Invariants: one agent per state folder (flock); one connection in one thread writes and checkpoints. A
commit is in the WAL, where a crash of this process can't lose it, before its fsync, which makes it survive a
power loss; callers choose what they wait for. Writes asked for together share one commit and one fsync. After
a failed fsync nothing is known of what is on disk (the kernel marks the pages clean): then every later write
fails too, `failed` says so, and only a new process, which reads again, may go on. The journal is read only at
start.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import queue
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from aio.supervisor import in_thread
from model.codec import decode_wire, encode_wire
from model.errors import Damaged, Exhausted, FlotaError, InUse, Unavailable, Unsupported

T = TypeVar("T")
W = TypeVar("W")
SCHEMA = 1
_CREATE = """
CREATE TABLE IF NOT EXISTS items (
    kind TEXT NOT NULL, key TEXT NOT NULL, data BLOB NOT NULL, PRIMARY KEY (kind, key)
) WITHOUT ROWID;
"""
_HINT = "Put a copy back, or move the file away: this host's containers are then made anew, with empty layers"

Write = tuple[str, str, bytes | None]
"""(kind, key, data); None deletes."""


@dataclass(frozen=True, slots=True)
class _Work:
    items: list[Write]
    future: asyncio.Future[None]
    durable: bool


class Journal:
    """`await Journal.open(folder)`; kinds are the callers' names for what they keep."""

    def __init__(self, lock: int, connection: sqlite3.Connection, path: Path) -> None:
        self._lock = lock
        self._wal = os.open(f"{path}-wal", os.O_RDONLY | os.O_CLOEXEC)
        self._connection = connection
        self.first_epoch = self.read("meta", int).get("epoch", 0)
        """The epoch of the agent before this one."""
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[FlotaError] = self._loop.create_future()
        """Done, with the reason, when this journal can't be used any more."""
        self._failure: FlotaError | None = None
        self._committed: queue.SimpleQueue[list[asyncio.Future[None]] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=work, name=work.__name__, daemon=True)
            for work in (self._commit_all, self._sync_all)
        ]
        for thread in self._threads:
            thread.start()

    @classmethod
    async def open(cls, folder: Path) -> Journal:
        """Raises InUse when another agent has the folder, Damaged or Unsupported for an unusable file."""
        lock = _lock(folder)
        try:
            path = folder / "journal.db"
            return cls(lock, await in_thread(_connect, path), path)
        except BaseException:
            os.close(lock)
            raise

    async def close(self) -> None:
        """After what was asked for is written."""
        self._queue.put(None)
        try:
            for thread in self._threads:
                await in_thread(thread.join)
        finally:
            os.close(self._lock)

    def read(self, kind: str, type_: type[T]) -> dict[str, T]:
        """Everything of a kind; only before the first write. Raises Damaged."""
        found: dict[str, T] = {}
        for key, data in self._connection.execute("SELECT key, data FROM items WHERE kind = ?", (kind,)):
            try:
                found[key] = decode_wire(data, type_)
            except Exception as error:
                raise Damaged(f"the agent's journal: {kind} {key[:12]}: {error}", hint=_HINT) from error
        return found

    def put(self, kind: str, key: str, value: Any, *, durable: bool = True) -> asyncio.Future[None]:
        """As `write`, of one item."""
        return self.write([(kind, key, encode_wire(value))], durable=durable)

    def delete(self, kind: str, key: str) -> asyncio.Future[None]:
        return self.write([(kind, key, None)])

    def write(self, items: list[Write], *, durable: bool = True) -> asyncio.Future[None]:
        """All of `items` or none, in the order of the calls. The future is done when a power loss can't undo
        it; with `durable` off, when a crash of this process can't, and the disk follows at once. Raises,
        through the future, Exhausted or Unavailable; awaiting it is the caller's choice."""
        future: asyncio.Future[None] = self._loop.create_future()
        future.add_done_callback(_seen)
        self._queue.put(_Work(items, future, durable))
        return future

    # -- the threads: one commits, one syncs what was committed ---------------------------------------
    def _commit_all(self) -> None:
        while (works := _drain(self._queue)) is not None:
            error = self._failure or self._commit([write for work in works for write in work.items])
            self._tell([work.future for work in works if error or not work.durable], error)
            if error is None:
                self._committed.put([work.future for work in works if work.durable])
        self._committed.put(None)
        self._connection.close()

    def _sync_all(self) -> None:
        """What synchronous=FULL would do inside the commit; here the next commit need not wait for it."""
        while (groups := _drain(self._committed)) is not None:
            try:
                if self._failure is None:
                    os.fdatasync(self._wal)
            except OSError as error:
                self._fail(error)
            self._tell([future for group in groups for future in group], self._failure)
        os.close(self._wal)

    def _fail(self, error: OSError) -> None:
        self._failure = Unavailable(
            f"the agent's journal did not reach the disk: {error.strerror}", hint="Start the agent again"
        )
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_settle_failed, self.failed, self._failure)

    def _tell(self, futures: list[asyncio.Future[None]], error: FlotaError | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone, and so is who asked
            if futures:
                self._loop.call_soon_threadsafe(_settle, futures, error)

    def _commit(self, writes: list[Write]) -> FlotaError | None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for kind, key, data in writes:
                if data is None:
                    self._connection.execute("DELETE FROM items WHERE kind = ? AND key = ?", (kind, key))
                else:
                    self._connection.execute("REPLACE INTO items VALUES (?, ?, ?)", (kind, key, data))
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
                return Exhausted("the disk of the agent's state folder is full", hint="Free some space")
            return Unavailable(f"the agent's journal can't be written: {error}")
        return None


def _drain(work: queue.SimpleQueue[W | None]) -> list[W] | None:
    """Wait for work and take all there is; None after the end was told."""
    found = [work.get()]
    while found[-1] is not None and not work.empty():
        found.append(work.get())
    if found[-1] is None and len(found) > 1:
        work.put(None)
    taken = [item for item in found if item is not None]
    return taken or None


def _seen(future: asyncio.Future[None]) -> None:
    """A failed write that nobody awaited is told by the next one that somebody does, as every record is
    written again at its next change."""
    if not future.cancelled():
        future.exception()


def _settle_failed(future: asyncio.Future[FlotaError], failure: FlotaError) -> None:
    if not future.done():
        future.set_result(failure)


def _settle(futures: list[asyncio.Future[None]], error: Exception | None) -> None:
    for future in futures:
        if future.done():
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


def _lock(folder: Path) -> int:
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(fd, 32, 0).decode(errors="replace").strip()
        os.close(fd)
        raise InUse(
            f"an agent already uses {folder}" + (f" (pid {holder})" if holder else ""),
            hint="Stop it first, or give this one another --root",
        ) from error
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def _connect(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA:
            raise Unsupported(f"{path} was written by a newer flota", hint="Start the newer agent again")
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(_CREATE)
        connection.execute(f"PRAGMA user_version = {SCHEMA}")
    except sqlite3.Error as error:
        raise Damaged(f"{path} can't be used: {error}", hint=_HINT) from error
    path.chmod(0o600)
    return connection
