"""The embedded store: sqlite as the durable log, the state itself in memory.

Invariants: one process (flock), one connection, one thread that writes and checkpoints (sqlite < 3.51.3 can
corrupt a WAL that two connections reset); a commit is acknowledged after the fsync of its group; a file that
is damaged, foreign or from a newer flota is refused and never re-created.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

from aio.supervisor import in_thread
from controller.snapshot import Cluster
from controller.store.base import ChangeLog, Changes, Conflict, Resync, Txn, stamped
from controller.store.sqlite_file import Database, FolderLock
from model.errors import Exhausted, FlotaError, Internal, Unavailable
from model.records import Record, Revision

log = logging.getLogger("flota.controller")
GROUP = 256
"""Transactions in one fsync at most."""


class _Work:
    """A transaction on its way through the writer thread, and how it ended."""

    __slots__ = ("beat", "future", "outcome", "puts", "txn")

    def __init__(
        self, txn: Txn | None, future: asyncio.Future[Revision | Conflict], *, beat: bool = False
    ) -> None:
        self.txn = txn
        """None: take the lead, or with `beat` nothing at all."""
        self.beat = beat
        self.future = future
        self.puts: tuple[Record, ...] = ()
        self.outcome: Revision | Conflict | FlotaError = 0


class SqliteStore:
    """`await SqliteStore.open(folder)`; the file is `folder/store.db`."""

    def __init__(self, path: Path, lock: FolderLock, database: Database, cluster: Cluster) -> None:
        self.url = f"sqlite:{path}"
        self._lock = lock
        self._database = database
        self._cluster = cluster
        self._log = ChangeLog(cluster.revision)
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._broken: FlotaError | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._write, name="store-writer", daemon=True)
        self._thread.start()

    @classmethod
    async def open(cls, folder: str | os.PathLike[str]) -> SqliteStore:
        """Raises InUse when another controller has the folder, Damaged or Unsupported when the file is not
        one that can be used."""
        path = Path(folder) / "store.db"
        lock = FolderLock(Path(folder))
        try:
            database, cluster = await in_thread(Database.open, path)
        except BaseException:
            lock.release()
            raise
        return cls(path, lock, database, cluster)

    def snapshot(self) -> Cluster:
        return self._cluster

    async def lead(self) -> int:
        epoch = await self._submit(None)
        assert isinstance(epoch, int)
        return epoch

    async def commit(self, txn: Txn) -> Revision | Conflict:
        return await self._submit(txn)

    def watch(self, since: Revision) -> AsyncIterator[Changes | Resync]:
        return self._log.watch(since)

    async def beat(self) -> None:
        await self._submit(None, beat=True)

    async def close(self) -> None:
        """Write what is queued, fold the WAL into the file, and let go of the folder."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        await in_thread(self._thread.join)
        self._lock.release()

    async def _submit(self, txn: Txn | None, *, beat: bool = False) -> Revision | Conflict:
        if self._closed:
            raise Unavailable("the store is closed")
        future: asyncio.Future[Revision | Conflict] = self._loop.create_future()
        self._queue.put(_Work(txn, future, beat=beat))
        return await future

    # -- the writer thread ----------------------------------------------------------------------------
    def _write(self) -> None:
        going = True
        while going:
            group = [self._queue.get()]
            while len(group) < GROUP and not self._queue.empty():
                group.append(self._queue.get())
            going = None not in group
            works = [work for work in group if work is not None]
            if works:
                self._write_group(works)
                with contextlib.suppress(RuntimeError):  # the loop is gone, and so is who asked
                    self._loop.call_soon_threadsafe(self._publish, works)
        self._database.close()

    def _write_group(self, works: list[_Work]) -> None:
        writes = [work for work in works if not work.beat]
        try:
            if self._broken is not None:
                raise self._broken
            if not writes:
                return
            with self._database.group():
                for work in writes:
                    self._write_one(work)
        except Exception as error:  # the thread must outlive it: nobody else answers those who wait
            failure = self._failure(error)
            for work in works if failure is self._broken else writes:  # who finds a disk full lives on
                work.outcome = failure

    def _write_one(self, work: _Work) -> None:
        if work.txn is None:
            work.outcome = self._database.raise_epoch()
            return
        try:
            found = self._database.write(work.txn)
        except (sqlite3.Error, FlotaError):
            raise
        except Exception as error:  # of this transaction alone: the others of its group can be written
            log.exception("a transaction can't be written")
            work.outcome = Internal(f"the controller's store can't write this: {error}")
            return
        work.outcome = found
        if not isinstance(found, Conflict):
            work.puts = stamped(work.txn.puts, found)

    def _failure(self, error: Exception) -> FlotaError:
        """A full disk may pass. After any other failed write the file's state is unknown (a failed fsync
        marks its pages clean), so nothing more is written until a restart has read it again."""
        if isinstance(error, FlotaError):
            return error
        if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
            return Exhausted("the disk of the controller's store is full", hint="Free some space")
        log.error("the store failed", exc_info=error)
        self._broken = Unavailable(
            f"the controller's store failed: {error}", hint="Restart the controller; it will check the file"
        )
        return self._broken

    # -- back on the loop -----------------------------------------------------------------------------
    def _publish(self, works: list[_Work]) -> None:
        for work in works:
            outcome = work.outcome
            if isinstance(outcome, int) and work.txn is not None:
                self._cluster, changes = self._cluster.apply(work.puts, work.txn.deletes, outcome)
                self._log.append(Changes(revision=outcome, changes=changes))
            if work.future.done():
                continue
            if isinstance(outcome, FlotaError):
                work.future.set_exception(outcome)
            else:
                work.future.set_result(outcome)
