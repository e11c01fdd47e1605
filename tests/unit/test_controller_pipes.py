"""Connections that hosts offer: who gets them when takers leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from aio.supervisor import Supervisor
from api.ports import Pipe
from controller.pipes import Pipes
from model.errors import Unavailable
from model.ids import HostId

HOST = HostId("h")


class Transport(asyncio.Transport):
    """One that carries nothing: open, or closed."""

    def __init__(self, protocol: asyncio.StreamReaderProtocol) -> None:
        super().__init__()
        self._protocol = protocol
        self.closed = False
        protocol.connection_made(self)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    abort = close


class Offered:
    """`api.ports.Pipe` over nothing."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(self.reader)
        self.transport = Transport(protocol)
        self.writer = asyncio.StreamWriter(self.transport, protocol, self.reader, loop)


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
