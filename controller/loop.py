"""The keyed reconcile loop: changes name keys, a key is planned on the newest snapshot, a plan is committed.

Invariant: every key is planned at start, after each change that concerns it, when its plan asked to be looked
at again, and now and then regardless; a lost or doubled event costs time, never correctness.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable

from aio.alarm import Alarm
from aio.backoff import delay, jittered
from aio.clock import Clock
from aio.workqueue import WorkQueue
from controller.committer import Committer
from controller.keys import all_keys, keys_of
from controller.plan import Plan
from controller.snapshot import Change, Cluster, Key
from controller.store.base import Resync, Store
from model.errors import FlotaError
from model.ids import InstanceId

log = logging.getLogger("flota.controller")
RESYNC = 60.0
"""Seconds, jittered, between looks at everything."""


class ReconcileLoop:
    """`plan(cluster, key)` is pure but for what it closes over; `changed` hears of every change first."""

    def __init__(
        self,
        store: Store,
        committer: Committer,
        clock: Clock,
        *,
        plan: Callable[[Cluster, Key], Plan],
        changed: Callable[[Cluster, Iterable[Change] | None], None],
    ) -> None:
        self._store = store
        self._committer = committer
        self._clock = clock
        self._plan = plan
        self._changed = changed
        self._queue: WorkQueue[Key] = WorkQueue()
        self._alarm: Alarm[Key] = Alarm(clock, self._queue.add)
        self._failures: dict[Key, int] = {}

    def add(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self._queue.add(key)

    def reported(self, instances: Iterable[InstanceId]) -> None:
        """Hosts said something new about these."""
        cluster = self._store.snapshot()
        for ident in instances:
            instance = cluster.instances.get(ident)
            if instance is not None:
                self.add(keys_of(cluster, Change(old=instance, new=instance)))

    async def idle(self) -> None:
        """Until nothing is queued or in hand."""
        await self._queue.join()

    async def run(self) -> None:
        """For ever; cancel it to stop."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            group.create_task(self._alarm.run())
            group.create_task(self._look_around())
            group.create_task(self._work())

    async def _watch(self) -> None:
        start = self._store.snapshot()
        self._all(start)
        async for item in self._store.watch(start.revision):
            cluster = self._store.snapshot()
            if isinstance(item, Resync):
                self._all(cluster)
                continue
            self._changed(cluster, item.changes)
            for change in item.changes:
                self.add(keys_of(cluster, change))

    def _all(self, cluster: Cluster) -> None:
        self._changed(cluster, None)
        self.add(all_keys(cluster))

    async def _look_around(self) -> None:
        while True:
            await self._clock.sleep(jittered(RESYNC, random.random()))
            self._all(self._store.snapshot())

    async def _work(self) -> None:
        while True:
            key = await self._queue.take()
            try:
                await self._step(key)
            finally:
                self._queue.done(key)
            await asyncio.sleep(0)  # an empty plan waits for nothing: sessions get their turn between keys

    async def _step(self, key: Key) -> None:
        try:
            plan = await self._committer.run(lambda cluster: self._plan(cluster, key))
        except Exception as error:  # also one that nobody foresaw: all other keys go on
            self._failed(key, error)
            return
        self._failures.pop(key, None)
        if plan.retry_at is not None:
            wait = max(0.0, plan.retry_at - self._clock.now())
            self._alarm.set(key, self._clock.monotonic() + wait)

    def _failed(self, key: Key, error: Exception) -> None:
        """Again after a while, ever longer."""
        self._failures[key] = self._failures.get(key, 0) + 1
        wait = delay(self._failures[key], first=0.2, limit=30.0)
        unforeseen = None if isinstance(error, FlotaError) else error
        words = "%s %s: %s; again in %.1f s"
        log.warning(words, key.kind, key.id[:12], error, wait, exc_info=unforeseen)
        self._alarm.set(key, self._clock.monotonic() + wait)
