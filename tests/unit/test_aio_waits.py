"""Who waits for something to become of a container."""

from __future__ import annotations

import asyncio

from aio.waits import REMEMBERED, Waits
from model.api import WaitResult
from model.ids import InstanceId
from model.status import InstanceStatus, Phase

BOX = InstanceId("b" * 64)


async def test_wait_for_what_is_so_already_ends_at_once() -> None:
    waits = Waits()
    result = WaitResult(exit_code=0, phase="exited")
    assert await waits.until(BOX, lambda: result) is result
    assert not waits._looks


async def test_wait_sees_a_state_that_the_next_follows_at_once() -> None:
    waits, states = Waits(), iter((Phase.RUNNING, Phase.EXITED, Phase.RUNNING))

    def look() -> WaitResult | None:
        phase = next(states)
        return WaitResult(exit_code=3, phase=phase) if phase is Phase.EXITED else None

    waiting = asyncio.ensure_future(waits.until(BOX, look))
    await asyncio.sleep(0)
    waits.ring(BOX)
    waits.ring(BOX)
    assert (await waiting).exit_code == 3


async def test_wait_that_nobody_waits_for_any_more_leaves_nothing() -> None:
    waits = Waits()
    waiting = asyncio.ensure_future(waits.until(BOX, lambda: None))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not waits._looks


async def test_last_statuses_of_the_removed_are_kept_and_bounded() -> None:
    waits = Waits()
    for number in range(REMEMBERED + 1):
        waits.gone(InstanceStatus(instance=InstanceId(f"{number:064x}"), phase=Phase.REMOVED))
    assert waits.last(InstanceId(f"{0:064x}")) is None
    assert waits.last(InstanceId(f"{1:064x}")) is not None
