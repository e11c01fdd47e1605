"""What every Store does, whatever its engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from controller.snapshot import Key
from controller.store.base import Changes, Conflict, Resync, Store, Txn
from controller.store.memory import MemoryStore
from controller.store.sqlite import SqliteStore
from model.ids import ServiceId
from model.records import Service
from model.spec import ContainerSpec, ServiceSpec

Make = Callable[[Path], Awaitable[Store]]


async def _memory(_: Path) -> Store:
    return MemoryStore()


async def _sqlite(folder: Path) -> Store:
    return await SqliteStore.open(folder)


@pytest.fixture(params=[_memory, _sqlite], ids=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store = await request.param(tmp_path)
    yield made
    await made.close()


def service(name: str, revision: int = 0) -> Service:
    spec = ServiceSpec(name=name, container=ContainerSpec(image="x"))
    return Service(id=ServiceId(name.rjust(64, "0")), spec=spec, revision=revision)


def key(name: str) -> Key:
    return Key("service", name.rjust(64, "0"))


async def test_commit_is_seen_in_the_next_snapshot_with_its_revision(store: Store) -> None:
    epoch = await store.lead()
    before = store.snapshot()
    revision = await store.commit(Txn(puts=(service("a"), service("b")), epoch=epoch))
    assert revision == before.revision + 1
    found = store.snapshot().get(key("a"))
    assert found is not None and found.revision == revision
    assert before.get(key("a")) is None


async def test_write_of_an_older_reading_conflicts_and_changes_nothing(store: Store) -> None:
    epoch = await store.lead()
    first = await store.commit(Txn(puts=(service("a"),), epoch=epoch))
    assert isinstance(first, int)
    await store.commit(Txn(puts=(service("a", first),), epoch=epoch))
    txn = Txn(puts=(service("b"), service("a", first)), epoch=epoch)
    outcome = await store.commit(txn)
    assert outcome == Conflict(key=key("a"), expected=first, found=first + 1)
    assert store.snapshot().get(key("b")) is None
    assert store.snapshot().revision == first + 1


async def test_creating_what_exists_conflicts(store: Store) -> None:
    epoch = await store.lead()
    await store.commit(Txn(puts=(service("a"),), epoch=epoch))
    assert isinstance(await store.commit(Txn(puts=(service("a"),), epoch=epoch)), Conflict)


async def test_check_of_a_changed_record_conflicts(store: Store) -> None:
    epoch = await store.lead()
    await store.commit(Txn(puts=(service("a"),), epoch=epoch))
    txn = Txn(puts=(service("b"),), checks=(service("a"),), epoch=epoch)
    assert isinstance(await store.commit(txn), Conflict)


async def test_delete_takes_the_record_at_its_revision_only(store: Store) -> None:
    epoch = await store.lead()
    first = await store.commit(Txn(puts=(service("a"),), epoch=epoch))
    assert isinstance(first, int)
    assert isinstance(await store.commit(Txn(deletes=(service("a", 99),), epoch=epoch)), Conflict)
    assert await store.commit(Txn(deletes=(service("a", first),), epoch=epoch)) == first + 1
    assert store.snapshot().get(key("a")) is None


async def test_older_leader_is_refused_after_a_newer_one(store: Store) -> None:
    old = await store.lead()
    new = await store.lead()
    assert new > old
    outcome = await store.commit(Txn(puts=(service("a"),), epoch=old))
    assert isinstance(outcome, Conflict) and outcome.key is None
    assert isinstance(await store.commit(Txn(puts=(service("a"),), epoch=new)), int)


async def test_heart_beats_between_commits_and_writes_nothing(store: Store) -> None:
    epoch = await store.lead()
    await asyncio.gather(store.beat(), store.commit(Txn(puts=(service("a"),), epoch=epoch)), store.beat())
    assert store.snapshot().revision == 1
    await store.beat()
    assert store.snapshot().revision == 1 and await store.lead() == epoch + 1


async def test_concurrent_writers_of_one_record_have_one_winner(store: Store) -> None:
    epoch = await store.lead()
    outcomes = await asyncio.gather(
        *(store.commit(Txn(puts=(service("a"),), epoch=epoch)) for _ in range(50))
    )
    assert sum(isinstance(o, int) for o in outcomes) == 1


async def test_watch_gives_every_commit_in_order_without_gap(store: Store) -> None:
    epoch = await store.lead()
    seen: list[int] = []

    async def watch() -> None:
        async for item in store.watch(0):
            assert isinstance(item, Changes)
            seen.append(item.revision)
            if item.revision == 300:
                return

    async with asyncio.TaskGroup() as group:
        group.create_task(watch())
        for number in range(3):
            txns = [Txn(puts=(service(f"{number}-{n}"),), epoch=epoch) for n in range(100)]
            await asyncio.gather(*(store.commit(txn) for txn in txns))
    assert seen == list(range(1, 301))


async def test_watch_of_the_future_or_a_forgotten_past_is_told_to_resync(store: Store) -> None:
    epoch = await store.lead()
    await store.commit(Txn(puts=(service("a"),), epoch=epoch))
    assert await anext(aiter(store.watch(99))) == Resync(revision=1)


async def test_indexes_equal_those_of_a_cluster_built_anew(store: Store) -> None:
    epoch = await store.lead()
    revision = await store.commit(Txn(puts=(service("a"), service("b")), epoch=epoch))
    assert isinstance(revision, int)
    changed = msgspec.structs.replace(service("a", revision), removed=True)
    await store.commit(Txn(puts=(changed,), deletes=(service("b", revision),), epoch=epoch))
    from controller.snapshot import Cluster

    cluster = store.snapshot()
    assert Cluster().apply(tuple(cluster.records()), (), cluster.revision)[0] == cluster
