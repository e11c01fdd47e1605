"""The one way by which anything is written: turns, and what becomes of them when their taker is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from aio.clock import VirtualClock
from aio.eventring import EventRing
from controller.committer import Committer
from controller.plan import Plan, put
from controller.snapshot import Cluster
from controller.store.base import Conflict, Txn
from controller.store.memory import MemoryStore
from model.events import Event
from model.ids import ServiceId
from model.records import Revision, Service
from model.spec import ContainerSpec, ServiceSpec


class SlowStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.writing, self.done = asyncio.Event(), asyncio.Event()

    async def commit(self, txn: Txn) -> Revision | Conflict:
        self.writing.set()
        await self.done.wait()
        return await super().commit(txn)


def made(name: str) -> Plan:
    spec = ServiceSpec(name=name, container=ContainerSpec(image="x"))
    event = Event(type="service", action="create", id=name, name=name, at=1.0)
    return Plan(items=(put(Service(id=ServiceId(name), spec=spec), "asked for"),), events=(event,))


async def test_cancelled_commit_keeps_its_turn_until_it_is_written_and_is_told() -> None:
    store, ring = SlowStore(), EventRing(VirtualClock())
    committer = Committer(store, ring)
    seen: list[int] = []

    def second(cluster: Cluster) -> Plan:
        seen.append(len(cluster.services))
        return Plan()

    first = asyncio.create_task(committer.run(lambda _: made("web")))
    await store.writing.wait()
    next_ = asyncio.create_task(committer.run(second))
    for _ in range(2):
        first.cancel()
        await asyncio.sleep(0)
    assert not first.done() and seen == []
    store.done.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    await next_
    assert seen == [1], "it decides on what was written"
    assert [event.action for event in ring.about("web")] == ["create"]
