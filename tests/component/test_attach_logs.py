"""Attaching to a container with what it said before."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.cgroup import CgroupFiles
from agent.hostapi import HostApi
from agent.logs import LogReader
from agent.streams import REPLAY
from model.errors import Unsupported
from model.spec import LogOptions
from model.status import Phase
from model.streams import STDERR, STDOUT
from tests.support.agentlab import AgentLab, ident, instance, phase, view


@asynccontextmanager
async def talking(lab: AgentLab, said: bytes, **spec: Any) -> AsyncIterator[HostApi]:
    """The host of a container that has said so much."""
    async with lab.agent() as agent:
        await agent.take_view(view(instance(**spec)))
        await phase(agent, 1, Phase.RUNNING)
        lab.runtime.emit(ident(1), said)
        yield HostApi(agent, CgroupFiles("/sys/fs/cgroup", "/flota-lab"), LogReader())


@contextmanager
def within(limit: int) -> Iterator[None]:
    """No more than so many bytes are newly held at any time in the block."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


async def test_attach_gives_the_log_and_then_what_is_said(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with talking(lab, b"one\ntwo\n") as host:
        session = await host.attach(ident(1), stdin=False, logs=True)
        lab.runtime.emit(ident(1), b"three\n")
        for word in (b"one\n", b"two\n", b"three\n"):
            assert await session.read() == (STDOUT, word)
        lab.runtime.exit(ident(1), 0)
        assert await session.read() is None
        await session.close()


async def test_attach_with_a_long_log_holds_its_end_and_says_what_is_left_out(tmp_path: Path) -> None:
    lab, row = AgentLab(tmp_path), b"x" * 1023 + b"\n"
    async with talking(lab, row * 32_000 + b"last\n") as host:
        with within(2 * REPLAY):
            session = await host.attach(ident(1), stdin=False, logs=True)
        stream, word = await session.read() or (0, b"")
        match = re.match(rb"flota: (\d+) earlier lines are left out", word)
        assert stream == STDERR and match is not None
        rest = 32_001 - int(match[1])
        assert REPLAY // 1200 < rest <= REPLAY // 1024
        assert [await session.read() for _ in range(rest)] == [(STDOUT, row)] * (rest - 1) + [
            (STDOUT, b"last\n")
        ]
        await session.close()


async def test_container_without_a_log_keeps_nothing_and_can_be_attached_to(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with talking(lab, b"one\n", log=LogOptions(driver="none")) as host:
        session = await host.attach(ident(1), stdin=False, logs=True)
        lab.runtime.emit(ident(1), b"two\n")
        assert await session.read() == (STDOUT, b"two\n")
        with pytest.raises(Unsupported, match="does not support reading"):
            await anext(
                host.logs(ident(1), follow=False, tail=None, since=None, until=None, timestamps=False)
            )
        await session.close()
