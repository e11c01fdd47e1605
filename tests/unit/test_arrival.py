"""Readers of a blob that is coming hear what they may read, and that it was for nothing."""

from __future__ import annotations

import asyncio

import pytest

from image.arrival import Arrival


async def heard(arrival: Arrival) -> list[int]:
    return [count async for count in arrival.counts()]


async def settled() -> None:
    """Let every task run until it waits."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_counts_tell_each_step_and_end_with_the_last_byte() -> None:
    arrival = Arrival(10)
    reader = asyncio.ensure_future(heard(arrival))
    for here in (0, 3, 3, 10):
        await settled()
        arrival.hear(here)
    assert await reader == [3, 10]


async def test_counts_for_one_who_comes_late_begin_with_what_is_there() -> None:
    arrival = Arrival(10)
    arrival.hear(4)
    arrival.hear(10)
    assert await heard(arrival) == [10]


async def test_counts_end_when_the_transfer_begins_again() -> None:
    arrival = Arrival(10)
    before = arrival.attempt
    reader = asyncio.ensure_future(heard(arrival))
    await settled()
    arrival.hear(8)
    await settled()
    arrival.hear(0)
    arrival.hear(10)
    assert await reader == [8]
    assert arrival.attempt != before
    assert await heard(arrival) == [10]


@pytest.mark.parametrize("size", [0, 10])
async def test_whole_waits_for_the_verification_not_for_the_last_byte(size: int) -> None:
    arrival = Arrival(size)
    arrival.hear(size)
    waiter = asyncio.ensure_future(arrival.whole())
    await settled()
    assert not waiter.done()
    arrival.verified()
    await waiter


async def test_begun_waits_for_the_first_byte() -> None:
    arrival = Arrival(10)
    waiter = asyncio.ensure_future(arrival.begun())
    arrival.hear(0)
    await settled()
    assert not waiter.done()
    arrival.hear(1)
    await waiter


async def test_begun_of_an_empty_blob_does_not_wait_for_ever() -> None:
    arrival = Arrival(0)
    arrival.verified()
    await arrival.begun()
    assert await heard(arrival) == []
