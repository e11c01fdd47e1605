"""The reconcile loop: every key gets its turn, whatever becomes of the others."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from aio.clock import VirtualClock
from aio.eventring import EventRing
from controller.committer import Committer
from controller.loop import ReconcileLoop
from controller.plan import Plan
from controller.snapshot import Cluster, Key
from controller.store.memory import MemoryStore
from model.errors import Unavailable

BAD, GOOD = Key("service", "bad"), Key("service", "good")


@contextlib.asynccontextmanager
async def running(clock: VirtualClock, plan: Callable[[Cluster, Key], Plan]) -> AsyncIterator[ReconcileLoop]:
    store = MemoryStore()
    committer = Committer(store, EventRing(clock))
    loop = ReconcileLoop(store, committer, clock, plan=plan, changed=lambda _cluster, _changes: None)
    task = asyncio.create_task(loop.run())
    try:
        yield loop
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_keys_without_anything_to_do_let_others_have_their_turn() -> None:
    clock, planned = VirtualClock(), list[int]()
    turns = 0

    def plan(cluster: Cluster, key: Key) -> Plan:
        planned.append(turns)
        return Plan()

    async with running(clock, plan) as loop:
        loop.add(Key("service", str(number)) for number in range(50))
        while len(planned) < 50:
            await asyncio.sleep(0)
            turns += 1
    assert len(set(planned)) > 40


@pytest.mark.parametrize("error", [KeyError("nobody foresaw it"), Unavailable("the store is away")])
async def test_key_that_can_not_be_planned_is_tried_again_and_delays_no_other(error: Exception) -> None:
    clock, planned = VirtualClock(), list[Key]()

    def plan(cluster: Cluster, key: Key) -> Plan:
        if key in (BAD, GOOD):
            planned.append(key)
        if planned.count(BAD) < 3 and key == BAD:
            raise error
        return Plan()

    async with running(clock, plan) as loop:
        loop.add((BAD, GOOD))
        await clock.advance(0)
        assert planned == [BAD, GOOD]
        await clock.advance(0.2)
        await clock.advance(0.4)
        await clock.advance(20)
        assert planned == [BAD, GOOD, BAD, BAD], "ever later, and no more once it went well"
        loop.add((GOOD,))
        await clock.advance(0)
        assert planned[-1] == GOOD
