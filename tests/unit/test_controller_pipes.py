"""Connections that hosts offer: who gets them when takers leave, and what is left of a host given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from aio.supervisor import Supervisor
from api.channels import Dropped, Pipe
from controller.pipes import Pipes
from model.errors import Unavailable
from model.ids import HostId
from tests.support.pipes import Offered

HOST, OTHER = HostId("h"), HostId("o")
WHY = "host one was lost"


class Pool:
    """Pipes whose hosts offer what a test says."""

    def __init__(self, tasks: Supervisor) -> None:
        self.pipes = Pipes(wait=5)
        self.offered: list[Offered] = []
        self._tasks = tasks

    def offer(self, host: HostId = HOST) -> Offered:
        """It is accepted in the loop's next turn."""
        made = Offered()
        self.offered.append(made)
        self._tasks.start(str(len(self.offered)), lambda: self.pipes.accept(host, made))
        return made

    async def take(self) -> asyncio.Task[Pipe]:
        """A taker that waits."""
        task = asyncio.create_task(self.pipes.open(HOST, "one"))
        await asyncio.sleep(0)
        return task


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    async with Supervisor("offers") as tasks:
        made = Pool(tasks)
        yield made
        for pipe in made.offered:
            pipe.transport.close()


async def handed_over_and_cancelled(pool: Pool, taker: asyncio.Task[Pipe]) -> Offered:
    """The taker is cancelled in the turn in which it is given what is offered, before it goes on."""
    pipe = pool.offer()
    asyncio.get_running_loop().call_soon(taker.cancel)
    with pytest.raises(asyncio.CancelledError):
        await taker
    return pipe


async def test_pipe_handed_to_a_taker_that_leaves_in_that_turn_goes_to_the_next(pool: Pool) -> None:
    leaving, staying = await pool.take(), await pool.take()
    pipe = await handed_over_and_cancelled(pool, leaving)
    assert await asyncio.wait_for(staying, 1) is pipe


async def test_pipe_handed_to_a_taker_that_leaves_in_that_turn_is_idle_again(pool: Pool) -> None:
    pipe = await handed_over_and_cancelled(pool, await pool.take())
    assert await asyncio.wait_for(pool.pipes.open(HOST, "one"), 1) is pipe


async def test_takers_that_leave_are_forgotten(pool: Pool) -> None:
    pipes = Pipes(wait=0)
    with pytest.raises(Unavailable, match="host one does not answer"):
        await pipes.open(HOST, "one")
    leaving = await pool.take()
    leaving.cancel()
    await asyncio.wait([leaving])
    await handed_over_and_cancelled(pool, await pool.take())
    assert not pipes._wanted and not pool.pipes._wanted


async def test_host_given_up_keeps_no_connection_and_its_callers_are_told(pool: Pool) -> None:
    used, idle, of_another = pool.offer(), pool.offer(), pool.offer(OTHER)
    await asyncio.sleep(0)
    used, idle = idle, used
    assert await pool.pipes.open(HOST, "one") is used
    reading = asyncio.create_task(used.reader.read())
    await asyncio.sleep(0)
    pool.pipes.drop(HOST, WHY)
    with pytest.raises(Dropped, match=WHY):
        await asyncio.wait_for(reading, 1)
    assert used.transport.closed and idle.transport.closed and not of_another.transport.closed
    later = pool.offer()
    await asyncio.sleep(0)
    assert await asyncio.wait_for(pool.pipes.open(HOST, "one"), 1) is later
    later.transport.close()
    for pipe in (used, idle, later):
        await pipe.writer.wait_closed()
    await asyncio.sleep(0)
    assert list(pool.pipes._accepted) == [OTHER]


async def test_who_waits_for_a_host_that_is_given_up_is_told(pool: Pool) -> None:
    waiting, leaving = await pool.take(), await pool.take()
    pool.pipes.drop(HOST, WHY)
    leaving.cancel()
    with pytest.raises(Unavailable, match=WHY):
        await asyncio.wait_for(waiting, 1)
    with pytest.raises(asyncio.CancelledError):
        await leaving
