"""A real agent whose controller is restored from a backup, or comes back with older state."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.leaders import Leaders
from agent.session import Session
from aio.clock import SystemClock
from controller import recovery
from controller.store.memory import MemoryStore
from model.api import CreateInstance
from model.codec import encode_wire
from model.status import Phase
from model.view import View
from model.wire import Ack, FullView, Hello, Recall, Welcome, decode_agent
from tests.component.test_agent_session import SPEC, host, session
from tests.support.agentlab import AgentLab, ident, instance, view
from tests.support.agents import MemoryChannel
from tests.support.fleet import Fleet, fleet
from tests.support.waiting import until


async def run(f: Fleet, name: str) -> int:
    """The process of a new container."""
    await f.controller.create_instance(CreateInstance(spec=SPEC, name=name, start=True))
    assert (await f.controller.wait_instance(name, "running")).phase == Phase.RUNNING
    return f.controller.get_instance(name).status.pid


async def test_restored_controller_learns_of_containers_from_the_agent_and_touches_none(
    tmp_path: Path,
) -> None:
    lab = AgentLab(tmp_path)
    async with fleet(host(), clock=SystemClock(), connect=False) as f, lab.agent() as agent:
        async with session(f, agent):
            await until(lambda: f.controller.ready_hosts(), deadline=5)
            old = await run(f, "old")
            backup, epoch = f.store.snapshot(), f.controller.committer.epoch
            late = await run(f, "late")
        await f.kill()
        begun = recovery.restored(backup, taken_at=1.0, now=f.clock.now())
        f.store = MemoryStore(begun, recovery.epoch_of(epoch, f.clock.now()))
        await f.start()
        async with session(f, agent):
            await until(lambda: f.controller.get_settings().recovery is None, deadline=5)
            await until(lambda: len(f.controller.list_instances()) == 2, deadline=5)
            await until(
                lambda: (
                    {i.instance.name: i.status.pid for i in f.controller.list_instances()}
                    == {"old": old, "late": late}
                ),
                deadline=5,
            )
            assert await run(f, "fresh")


@pytest.mark.parametrize(("epoch", "revision"), [(4, 90), (5, 10), (4, 10)])
async def test_controller_of_older_state_is_refused_and_changes_nothing(
    tmp_path: Path, epoch: int, revision: int
) -> None:
    lab = AgentLab(tmp_path)
    first, older = ident(1), View(revision=revision)
    async with lab.agent() as agent:
        await agent.take_view(view(instance(), revision=50))
        assert await agent.leaders.older(5) is False
        near, far = MemoryChannel.pair()
        task = asyncio.create_task(Session(agent, epoch=1).run(near))
        assert isinstance(decode_agent(await far.receive() or b""), Hello)
        await far.send(encode_wire(Welcome(view=older, ping_every=1.0, epoch=epoch)))
        with pytest.raises(Exception, match="older than what this host was told"):
            await asyncio.wait_for(task, 5)
        assert first in agent.context.view.instances


async def test_agent_that_is_asked_goes_by_what_it_knows_until_a_whole_view_comes(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    first = ident(1)
    async with lab.agent() as agent:
        await agent.take_view(view(instance(), revision=50))
        near, far = MemoryChannel.pair()
        task = asyncio.create_task(Session(agent, epoch=1).run(near))
        await far.receive()
        await far.send(encode_wire(Welcome(view=View(revision=9), ping_every=1.0, epoch=7, recall=True)))
        told = decode_agent(await far.receive() or b"")
        assert isinstance(told, Recall)
        assert told.view == agent.context.view and first in told.view.instances
        assert not agent.membership.in_session
        await far.send(encode_wire(FullView(view=View(revision=1 << 30))))
        while not isinstance(message := decode_agent(await far.receive() or b""), Ack):
            assert isinstance(message, object)
        assert message.revision == 1 << 30
        assert agent.membership.in_session and first not in agent.context.view.instances
        await far.close()
        task.cancel()
        await asyncio.wait({task})


async def test_leaders_epoch_outlives_the_agent(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        assert [await agent.leaders.older(epoch) for epoch in (3, 7, 6, 0, 7)] == [
            False,
            False,
            True,
            False,
            False,
        ]
    async with lab.agent() as agent:
        assert isinstance(agent.leaders, Leaders)
        assert agent.leaders.newest == 7
