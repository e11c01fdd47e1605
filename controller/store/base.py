"""The Store seam: a durable, revisioned set of records with optimistic writes and a watch.

Invariants: a commit is all or nothing; once `commit` has returned a revision it survives the death of the
process and of the machine; `snapshot` shows only what is durable; a watcher misses no change or is told so.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import msgspec

from controller.snapshot import Change, Cluster, Key, key_of
from model.records import Record, Revision
from model.spec import Struct

HISTORY = 4096
"""Commits that a watcher may lie behind before it is told to read everything again."""


class Txn(Struct):
    """A set of writes. The `revision` a record carries is the one it was read at, and is what the write
    expects to find; 0 means that there must be no such record."""

    puts: tuple[Record, ...] = ()
    deletes: tuple[Record, ...] = ()
    checks: tuple[Record, ...] = ()
    """Only read, but the decision rests on them."""
    epoch: int = 0
    """The leader's; a store that has seen a newer one refuses the write."""

    @property
    def empty(self) -> bool:
        return not self.puts and not self.deletes


class Conflict(Struct):
    """The world moved on: drop the plan and decide again from a fresh snapshot."""

    key: Key | None
    """None: a newer leader has taken over, and this one must stop writing."""
    expected: int
    found: int

    def __str__(self) -> str:
        if self.key is None:
            return f"leader epoch {self.expected} is over, {self.found} leads"
        return f"{self.key.kind} {self.key.id[:12]} is at revision {self.found}, not {self.expected}"


class Changes(Struct):
    """One commit, as a watcher sees it."""

    revision: Revision
    changes: tuple[Change, ...]


class Resync(Struct):
    """The watcher fell behind, or asked for a past that is gone: read `snapshot()` and go on from there."""

    revision: Revision


class Store(Protocol):
    """What every engine does; `tests/contract/test_store_contract.py` is the law."""

    @property
    def url(self) -> str:
        """Which engine and where, for people."""
        ...

    def snapshot(self) -> Cluster:
        """The latest durable state; synchronous and immutable."""
        ...

    async def lead(self) -> int:
        """Become the leader: a new epoch, after which commits of any older one are refused."""
        ...

    async def commit(self, txn: Txn) -> Revision | Conflict:
        """Write all of it durably, or nothing. Raises Unavailable or Exhausted when it can't be written."""
        ...

    def watch(self, since: Revision) -> AsyncIterator[Changes | Resync]:
        """Every commit after revision `since`, in order, for ever."""
        ...

    async def beat(self) -> None:
        """Returns once whoever writes has come round to it; nothing is written. Raises Unavailable when no
        more can be."""
        ...

    async def close(self) -> None: ...


def stamped(records: Sequence[Record], revision: Revision) -> tuple[Record, ...]:
    """The records as they are stored: carrying the commit's revision."""
    return tuple(msgspec.structs.replace(record, revision=revision) for record in records)


def conflict_in(cluster: Cluster, txn: Txn, epoch: int) -> Conflict | None:
    """The first expectation of `txn` that does not hold."""
    if txn.epoch < epoch:
        return Conflict(key=None, expected=txn.epoch, found=epoch)
    for record in (*txn.checks, *txn.deletes, *txn.puts):
        have = cluster.get(key_of(record))
        found = have.revision if have is not None else 0
        if found != record.revision:
            return Conflict(key=key_of(record), expected=record.revision, found=found)
    return None


class ChangeLog:
    """The recent commits, and the bell of those who watch them."""

    def __init__(self, revision: Revision, limit: int = HISTORY) -> None:
        self._ring: deque[Changes] = deque(maxlen=limit)
        self._head = revision
        self._moved = asyncio.Event()

    def append(self, changes: Changes) -> None:
        self._ring.append(changes)
        self._head = changes.revision
        self._moved.set()
        self._moved = asyncio.Event()

    async def watch(self, since: Revision) -> AsyncIterator[Changes | Resync]:
        at = since
        while True:
            moved = self._moved
            first = self._ring[0].revision if self._ring else self._head + 1
            if at > self._head or at < first - 1:
                at = self._head
                yield Resync(revision=at)
                continue
            for changes in self._after(at):
                at = changes.revision
                yield changes
                if self._ring and at < self._ring[0].revision - 1:
                    break
            if at == self._head:
                await moved.wait()

    def _after(self, at: Revision) -> list[Changes]:
        """Revisions rise by exactly one per commit, so a position in the ring is a subtraction."""
        if at >= self._head:
            return []
        skip = at + 1 - self._ring[0].revision
        return [self._ring[i] for i in range(skip, len(self._ring))]
