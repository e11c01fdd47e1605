"""`--on-failure shell`: a person in what a step has left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from image.dockerfile.instruction import Mount
from model.build import Typed
from tests.support.buildlab import BuildLab, SaidSession, run_step

pytestmark = pytest.mark.kernel


async def test_person_sees_what_the_step_left_in_a_terminal_of_their_size(building: BuildLab) -> None:
    session = SaidSession({"key": b"hidden"})
    session.typed = [
        Typed(rows=33, cols=101),
        Typed(data=b"cat /left; stty size; cat /run/secrets/key; tty; exit 5\n"),
    ]
    step = run_step("echo half > /left; exit 1", mounts=[Mount(kind="secret", ident="key")])
    with building.files() as files:
        async with building.runner() as runner, asyncio.timeout(20):
            assert await runner.run(files.root, step, [None], session, 1) == 1
            assert await runner.shell(files.root, step, [None], session, 1) == 5
        assert files.changed() == ["left"]
    said = session.out.replace(b"\r\n", b"\n")
    assert b"half\n33 101\nhidden/dev/" in said


async def test_shell_ends_with_the_persons_input(building: BuildLab) -> None:
    session = SaidSession()
    session.typed = [Typed(data=b"echo here\n")]
    with building.files() as files:
        async with building.runner() as runner, asyncio.timeout(20):
            assert await runner.shell(files.root, run_step("false"), (), session, 1) == 0
    assert b"here\r\n" in session.out


async def test_shell_of_a_person_who_is_gone_is_dead(building: BuildLab) -> None:
    started = asyncio.Event()

    class Silent(SaidSession):
        async def shell(self, number: int) -> AsyncIterator[Typed]:
            return self._never()

        async def _never(self) -> AsyncIterator[Typed]:
            yield Typed(data=b"trap '' HUP TERM; echo up\n")
            await asyncio.Event().wait()

    session = Silent()
    session.heard = lambda data: started.set()
    with building.files() as files:
        async with building.runner() as runner, asyncio.timeout(20), asyncio.TaskGroup() as group:
            task = group.create_task(runner.shell(files.root, run_step("false"), (), session, 1))
            await started.wait()
            task.cancel()
        assert building.left() == []
