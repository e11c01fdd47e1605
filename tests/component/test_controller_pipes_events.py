"""Connections on offer, and what happened lately."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from aio.clock import VirtualClock
from aio.eventring import KEPT, EventRing
from api.channels import Pipe
from controller.pipes import Pipes
from model.errors import Unavailable
from model.events import Event
from model.ids import HostId
from tests.support.waiting import until

HOST = HostId("h")


@dataclass
class Ends:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


@contextlib.asynccontextmanager
async def offered(pipes: Pipes) -> AsyncIterator[tuple[Ends, Ends, asyncio.Task[None]]]:
    """(the host's end, the controller's end, the offer) over a real loopback connection."""
    arrived: asyncio.Future[Ends] = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(lambda r, w: arrived.set_result(Ends(r, w)), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    ours = await arrived
    offer = asyncio.create_task(pipes.accept(HOST, ours))
    await asyncio.sleep(0)
    try:
        yield Ends(reader, writer), ours, offer
    finally:
        for end in (ours.writer, writer):
            end.close()
        await asyncio.wait({offer}, timeout=5)
        server.close()
        await server.wait_closed()


async def test_offered_pipe_is_taken_once_and_its_offer_ends_when_it_is_used_up() -> None:
    pipes = Pipes(wait=0.05)
    async with offered(pipes) as (theirs, ours, offer):
        pipe: Pipe = await pipes.open(HOST, "one")
        assert pipe is ours
        pipe.writer.write(b"hello")
        assert await theirs.reader.readexactly(5) == b"hello"
        with pytest.raises(Unavailable, match="host one does not answer"):
            await pipes.open(HOST, "one")
        assert not offer.done()
        pipe.writer.close()
        await asyncio.wait_for(offer, 5)


async def test_caller_who_waits_gets_the_next_offer() -> None:
    pipes = Pipes(wait=5)
    waiting = asyncio.create_task(pipes.open(HOST, "one"))
    await asyncio.sleep(0)
    async with offered(pipes) as (_, ours, _offer):
        assert await asyncio.wait_for(waiting, 5) is ours


async def test_pipe_that_its_host_closed_is_not_handed_out() -> None:
    pipes = Pipes(wait=0.05)
    async with offered(pipes) as (theirs, ours, _):
        theirs.writer.close()
        await until(ours.reader.at_eof, deadline=5)
        with pytest.raises(Unavailable):
            await pipes.open(HOST, "one")


async def test_events_are_numbered_and_streamed_from_the_past_into_the_present() -> None:
    clock = VirtualClock(100.0)
    ring = EventRing(clock)
    for name in ("old", "new"):
        ring.add(Event(type="container", action="start", id=name))
        await clock.advance(10)
    stream = ring.stream(105.0, None)
    assert (await anext(stream)).id == "new"
    following = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    ring.add(Event(type="container", action="die", id="now"))
    last = await asyncio.wait_for(following, 5)
    assert (last.id, last.cursor, last.at) == ("now", 3, 120.0)
    await stream.aclose()  # type: ignore[attr-defined]


async def test_stream_until_a_past_time_ends() -> None:
    ring = EventRing(VirtualClock(100.0))
    ring.add(Event(type="node", action="ready", id="a"))
    assert [e.id async for e in ring.stream(0.0, 100.0)] == ["a"]


async def test_stream_until_a_time_to_come_ends_then_though_nothing_happens() -> None:
    clock = VirtualClock(100.0)
    ring = EventRing(clock)

    async def read() -> list[str]:
        return [event.id async for event in ring.stream(None, 103.5)]

    reading = asyncio.create_task(read())
    await clock.advance(3)
    ring.add(Event(type="node", action="ready", id="a"))
    await clock.advance(0.4)
    assert not reading.done()
    await clock.advance(0.1)
    assert await asyncio.wait_for(reading, 5) == ["a"]


async def test_slow_reader_is_told_how_many_it_missed() -> None:
    ring = EventRing(VirtualClock())
    stream = ring.stream(None, None)
    first = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    for number in range(KEPT):
        ring.add(Event(type="node", action="x", id=str(number)))
    event = await first
    assert event.action == "dropped" and int(event.attributes["count"]) > 0
    await stream.aclose()  # type: ignore[attr-defined]
