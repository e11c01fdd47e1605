"""The agent's journal: the last View, each instance's record, its volumes, its epoch; on sqlite.

Invariants: one agent per state folder (flock); one connection in one thread, WAL, synchronous FULL, so that a
write that was awaited survives a power loss; writes asked for together share one fsync. What was read once is
kept by the callers: the journal is read only at start.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import queue
import sqlite3
import threading
from pathlib import Path
from typing import Any, TypeVar

from aio.supervisor import in_thread
from model.codec import decode_wire, encode_wire
from model.errors import Damaged, Exhausted, InUse, Unavailable, Unsupported

T = TypeVar("T")
SCHEMA = 1
_CREATE = """
CREATE TABLE IF NOT EXISTS items (
    kind TEXT NOT NULL, key TEXT NOT NULL, data BLOB NOT NULL, PRIMARY KEY (kind, key)
) WITHOUT ROWID;
"""
_HINT = (
    "Stop the agent and move the file away; containers keep running and are found again from the controller"
)

Write = tuple[str, str, bytes | None]
"""(kind, key, data); None deletes."""


class Journal:
    """`await Journal.open(folder)`; kinds are the callers' names for what they keep."""

    def __init__(self, lock: int, connection: sqlite3.Connection) -> None:
        self._lock = lock
        self._connection = connection
        self.first_epoch = self.read("meta", int).get("epoch", 0)
        """The epoch of the agent before this one."""
        self._queue: queue.SimpleQueue[tuple[list[Write], asyncio.Future[None]] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    @classmethod
    async def open(cls, folder: Path) -> Journal:
        """Raises InUse when another agent has the folder, Damaged or Unsupported for an unusable file."""
        lock = _lock(folder)
        try:
            return cls(lock, await in_thread(_connect, folder / "journal.db"))
        except BaseException:
            os.close(lock)
            raise

    async def close(self) -> None:
        """After what was asked for is written."""
        self._queue.put(None)
        try:
            await in_thread(self._thread.join)
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

    def put(self, kind: str, key: str, value: Any) -> asyncio.Future[None]:
        """Durable once the returned future is done; awaiting it is the caller's choice."""
        return self.write([(kind, key, encode_wire(value))])

    def delete(self, kind: str, key: str) -> asyncio.Future[None]:
        return self.write([(kind, key, None)])

    def write(self, items: list[Write]) -> asyncio.Future[None]:
        """All of `items` or none. Raises, through the future, Exhausted or Unavailable."""
        future: asyncio.Future[None] = self._loop.create_future()
        future.add_done_callback(_seen)
        self._queue.put((items, future))
        return future

    # -- the writer thread --------------------------------------------------------------------------
    def _run(self) -> None:
        while True:
            first = self._queue.get()
            group = [first]
            while not self._queue.empty():
                group.append(self._queue.get())
            works = [work for work in group if work is not None]
            if works:
                error = self._commit([write for writes, _ in works for write in writes])
                with contextlib.suppress(RuntimeError):  # the loop is gone, and so is who asked
                    self._loop.call_soon_threadsafe(_settle, [future for _, future in works], error)
            if None in group:
                self._connection.close()
                return

    def _commit(self, writes: list[Write]) -> Exception | None:
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


def _seen(future: asyncio.Future[None]) -> None:
    """A failed write that nobody awaited is told by the next one that somebody does, as every record is
    written again at its next change."""
    if not future.cancelled():
        future.exception()


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
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(_CREATE)
        connection.execute(f"PRAGMA user_version = {SCHEMA}")
    except sqlite3.Error as error:
        raise Damaged(f"{path} can't be used: {error}", hint=_HINT) from error
    path.chmod(0o600)
    return connection
