"""Work queue, mailboxes, supervisor, virtual clock."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import weakref

import pytest

from aio.backoff import delay, jittered
from aio.clock import VirtualClock
from aio.mailbox import Bell, Dropped, Feed, Mailbox
from aio.sharing import SharedLock, SharedLocks
from aio.supervisor import Supervisor, in_thread
from aio.together import together
from aio.workqueue import WorkQueue
from model.errors import NotFound
from tests.support.waiting import until


async def test_a_key_added_while_in_hand_is_run_again_and_never_twice_at_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.add("a")
    assert await queue.take() == "a"
    queue.add("a")
    queue.add("b")
    assert await queue.take() == "b"
    queue.done("a")
    assert await queue.take() == "a"
    queue.done("a")
    queue.done("b")
    await asyncio.wait_for(queue.join(), 1)
    assert len(queue) == 0


async def test_a_mailbox_keeps_the_latest_per_key() -> None:
    box: Mailbox[str, int] = Mailbox()
    box.put("a", 1)
    box.put("b", 2)
    box.put("a", 3)
    assert await box.take_all() == {"a": 3, "b": 2}
    assert box.take_now() == {}


async def test_a_bell_rung_before_the_wait_is_heard_once() -> None:
    bell = Bell()
    bell.ring()
    bell.ring()
    assert await bell.wait(1)
    assert not await bell.wait(0.001)


async def test_a_slow_reader_of_a_feed_is_told_what_it_missed() -> None:
    feed: Feed[int] = Feed(2)
    for number in range(5):
        feed.put(number)
    feed.close()
    got = [item async for item in feed]
    assert isinstance(got[0], Dropped) and got[0].count == 3
    assert got[1:] == [3, 4]


async def test_a_failing_child_is_restarted_and_its_siblings_live(caplog: pytest.LogCaptureFixture) -> None:
    runs: list[int] = []
    lived = asyncio.Event()

    async def failing() -> None:
        runs.append(1)
        if len(runs) < 3:
            raise ValueError("first two fail")

    with caplog.at_level(logging.CRITICAL, "flota.aio"):
        async with Supervisor("test") as supervisor:
            supervisor.start("sibling", lived.wait)
            supervisor.start("failing", failing, restart=True)
            await until(lambda: "failing" not in supervisor, deadline=5)
            assert len(runs) == 3 and "sibling" in supervisor
            with pytest.raises(RuntimeError):
                supervisor.start("sibling", lived.wait)
            await supervisor.stop("sibling")
            assert supervisor.names() == []


async def test_a_closing_supervisor_awaits_every_child() -> None:
    cleaned = []

    async def child() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(1)

    supervisor = Supervisor("test")
    supervisor.start("child", child)
    await asyncio.sleep(0)
    await supervisor.close()
    assert cleaned == [1]


async def test_in_thread_that_fails_keeps_nothing_of_the_call() -> None:
    """Not even until the next collection of cycles, which may be long after."""

    class Large:
        pass

    seen: list[weakref.ref[Large]] = []

    def work() -> None:
        large = Large()
        seen.append(weakref.ref(large))
        raise NotFound("it is not there")

    gc.disable()
    try:
        for _ in range(3):
            with contextlib.suppress(NotFound):
                await in_thread(work)
        await until(lambda: all(one() is None for one in seen), deadline=10)
    finally:
        gc.enable()


async def test_in_thread_waits_for_its_thread_when_cancelled() -> None:
    import threading

    release, ended = threading.Event(), []

    def work() -> None:
        release.wait(5)
        ended.append(1)

    task = asyncio.create_task(in_thread(work))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [1]


async def test_virtual_time_wakes_sleepers_in_order() -> None:
    clock = VirtualClock(100.0)
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((name, clock.now()))

    async with asyncio.TaskGroup() as group:
        for name, seconds in (("late", 3.0), ("soon", 1.0), ("never", 99.0)):
            group.create_task(sleeper(name, seconds))
        await clock.advance(5)
        assert woken == [("soon", 101.0), ("late", 103.0)]
        await clock.advance(100)


def test_back_off_doubles_up_to_its_limit() -> None:
    assert [delay(n, first=1, limit=5) for n in range(6)] == [0, 1, 2, 4, 5, 5]
    assert delay(10_000) == 30.0
    assert jittered(10, 0.0) == 7.5 and jittered(10, 0.5) == 10


# -- together -------------------------------------------------------------------------------------------
async def test_work_done_together_gives_its_outcomes_in_order() -> None:
    second = asyncio.Event()

    async def waits() -> str:
        await second.wait()
        return "one"

    async def lets_go() -> str:
        second.set()
        return "two"

    assert await together([waits(), lets_go()]) == ("one", "two")
    assert await together(()) == ()


async def test_work_done_together_of_which_one_fails_ends_the_rest() -> None:
    ended = []

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("one")

    async def fails() -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        await together([waits(), fails()])
    assert ended == ["one"]


async def fails_at_its_end(begun: asyncio.Event) -> None:
    try:
        begun.set()
        await asyncio.Event().wait()
    finally:
        raise OSError("no")


async def test_work_done_together_that_fails_as_it_is_cancelled_is_cancelled() -> None:
    """Whoever lets failures pass would go on and never end."""
    begun = asyncio.Event()

    async def lets_failures_pass() -> None:
        with contextlib.suppress(OSError):
            await together([fails_at_its_end(begun)])
        await asyncio.Event().wait()

    task = asyncio.create_task(lets_failures_pass())
    await begun.wait()
    task.cancel()
    assert await asyncio.wait((task,), timeout=5) == ({task}, set()) and task.cancelled()


async def test_work_done_together_whose_time_is_over_is_late_though_it_fails_then() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await together([fails_at_its_end(asyncio.Event())])


async def test_work_done_together_tells_the_first_failure_and_leaves_no_cancellation_behind() -> None:
    begun = asyncio.Event()

    async def fails() -> None:
        await begun.wait()
        raise NotFound("first")

    with pytest.raises(NotFound, match="first"):
        await together([fails_at_its_end(begun), fails()])
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0


async def test_work_done_together_is_over_before_a_second_cancellation_is_heeded() -> None:
    begun, asked, let, over = asyncio.Event(), asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def ends_slowly() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            asked.set()
            await let.wait()
            over.set()

    task = asyncio.create_task(together([ends_slowly()]))
    await begun.wait()
    task.cancel()
    await asked.wait()
    task.cancel()
    assert not (await asyncio.wait((task,), timeout=0.01))[0]
    let.set()
    await asyncio.wait((task,), timeout=5)
    assert over.is_set() and task.cancelled()


async def test_a_lock_wanted_alone_waits_for_who_shares_it_and_not_for_who_comes_later() -> None:
    lock, order, leave = SharedLock(), list[str](), asyncio.Event()

    async def share(name: str, until: asyncio.Event | None = None) -> None:
        async with lock.shared():
            order.append(name)
            if until is not None:
                await until.wait()

    async def alone() -> None:
        async with lock.alone():
            order.append("alone")
            await asyncio.sleep(0)
            order.append("alone still")

    async with asyncio.TaskGroup() as group:
        group.create_task(share("first", leave))
        group.create_task(share("second", leave))
        await until(lambda: len(order) == 2, deadline=1)
        group.create_task(alone())
        await asyncio.sleep(0)
        group.create_task(share("late"))
        await asyncio.sleep(0)
        assert order == ["first", "second"]
        leave.set()
    assert order == ["first", "second", "alone", "alone still", "late"]


async def test_a_shared_lock_whose_waiting_was_cancelled_can_be_had_again() -> None:
    locks = SharedLocks()
    async with locks.of("a").shared():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01), locks.of("a").alone():
                raise AssertionError("it is shared")
        async with locks.of("a").shared(), locks.of("b").alone():
            pass
    async with locks.of("a").alone():
        pass
