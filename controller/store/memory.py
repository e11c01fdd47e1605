"""A store in memory: the reference for the contract, and the engine of tests and simulations.

Invariant: as every Store, except that "durable" means "as long as the process"; handing the same object to a
second controller is how tests restart one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from controller.snapshot import Cluster
from controller.store.base import ChangeLog, Changes, Conflict, Resync, Txn, conflict_in, stamped
from model.records import Revision


class MemoryStore:
    url = "memory:"

    def __init__(self, cluster: Cluster | None = None, epoch: int = 0) -> None:
        """`cluster` and `epoch`: to begin with."""
        self._cluster = cluster or Cluster()
        self._epoch = epoch
        self._log = ChangeLog(self._cluster.revision)

    def snapshot(self) -> Cluster:
        return self._cluster

    async def lead(self) -> int:
        self._epoch += 1
        return self._epoch

    async def commit(self, txn: Txn) -> Revision | Conflict:
        conflict = conflict_in(self._cluster, txn, self._epoch)
        if conflict is not None:
            return conflict
        revision = self._cluster.revision + 1
        self._cluster, changes = self._cluster.apply(stamped(txn.puts, revision), txn.deletes, revision)
        self._log.append(Changes(revision=revision, changes=changes))
        return revision

    def watch(self, since: Revision) -> AsyncIterator[Changes | Resync]:
        return self._log.watch(since)

    async def beat(self) -> None:
        return None

    async def close(self) -> None:
        return None
