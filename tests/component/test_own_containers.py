"""Containers of a host's own, over fakes: its journal is their authority, with and without a fleet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from agent import ownrules
from agent.host import HostAgent
from agent.journal import Journal
from agent.ownjournal import OwnJournal
from agent.record import Local
from agent.session import Session
from agent.wanted import Own
from model.errors import AlreadyExists, Ambiguous, Exhausted
from model.ids import HostId
from model.records import Desired, Instance
from model.spec import Attachment, RestartPolicy
from model.status import Phase
from model.view import View
from tests.support.agentlab import HOST, AgentLab, gone, ident, instance, phase, view
from tests.support.waiting import until


def _own(number: int, **spec: Any) -> Instance:
    return replace(instance(number, networks=(Attachment(network="none"),), **spec), attachments=())


def _put(box: Instance) -> Callable[[Own], Instance]:
    return lambda own: box


async def _reached(agent: HostAgent, number: int, wanted: Phase) -> Local:
    def found() -> Local | None:
        record = agent.context.records.get(ident(number))
        return record if record is not None and record.phase is wanted else None

    record = await until(found, deadline=20, what=f"own {number} {wanted}")
    assert isinstance(record, Local)
    return record


async def test_an_own_container_of_a_host_that_heard_no_fleet_runs(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.own.change(_put(_own(1)))
        assert (await _reached(agent, 1, Phase.RUNNING)).running


async def test_an_own_container_is_kept_by_views_that_do_not_name_it(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.take_view(view(instance(2)))
        await agent.own.change(_put(_own(1)))
        first = await _reached(agent, 1, Phase.RUNNING)
        await agent.take_view(view(revision=2))
        await gone(agent, 2)
        assert agent.context.records[ident(1)] == first


async def test_an_own_container_is_told_to_no_controller_as_its_own(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.take_view(view(instance(2)))
        await phase(agent, 2, Phase.RUNNING)
        await agent.own.change(_put(_own(1)))
        await _reached(agent, 1, Phase.RUNNING)
        assert [status.instance for status in agent.statuses()] == [ident(2)]
        report = await agent.reporter.next()
        assert [status.instance for status in report.statuses] == [ident(2)]
        recall = Session(agent, epoch=1)._recall()
        assert list(recall.view.instances) == [ident(2)]
        assert [status.instance for status in recall.statuses] == [ident(2)]


async def test_an_own_container_goes_on_over_an_agents_end(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.own.change(_put(_own(1)))
        pid = (await _reached(agent, 1, Phase.RUNNING)).created
    async with lab.agent() as agent:
        assert (await _reached(agent, 1, Phase.RUNNING)).created == pid


async def test_an_own_container_starts_after_a_reboot_as_its_policy_says(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    always = RestartPolicy(condition="always", delay=0.01, max_delay=0.1)
    async with lab.agent() as agent:
        await agent.own.change(_put(_own(1, restart=always)))
        await agent.own.change(_put(_own(2)))
        await _reached(agent, 1, Phase.RUNNING)
        await _reached(agent, 2, Phase.RUNNING)
    lab.reboot()
    async with lab.agent() as agent:
        await _reached(agent, 1, Phase.RUNNING)
        assert not (await _reached(agent, 2, Phase.EXITED)).live


async def test_a_removed_own_container_leaves_nothing_not_even_in_the_journal(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.own.change(_put(_own(1)))
        await _reached(agent, 1, Phase.RUNNING)
        await agent.own.change(lambda own: replace(own[ident(1)], desired=Desired.REMOVED, force=True))
        await gone(agent, 1)
        assert lab.leaks() == {} and not agent.context.own
        assert (await agent.reporter.next()).forgotten == ()
    async with lab.agent() as agent:
        assert not agent.context.own and not agent.workers


async def test_a_refused_change_of_own_containers_changes_nothing(tmp_path: Path) -> None:
    def refuse(own: Own) -> Instance:
        raise AlreadyExists("taken")

    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        with pytest.raises(AlreadyExists):
            await agent.own.change(refuse)
        assert not agent.context.own


class _Full:
    """A journal on a full disk."""

    def put(self, kind: str, key: str, value: Any) -> asyncio.Future[None]:
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        written.set_exception(Exhausted("the disk is full"))
        return written


async def test_an_own_container_that_could_not_be_written_is_not_there(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.own.change(_put(_own(1)))
        before = agent.context.own
        full = OwnJournal(agent.context, cast("Journal", _Full()), lambda: None)
        for change in (_own(2), replace(_own(1), desired=Desired.STOPPED)):
            with pytest.raises(Exhausted):
                await full.change(_put(change))
            assert agent.context.own == before


async def test_a_change_of_own_containers_comes_about_though_nobody_waits(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        asking = asyncio.ensure_future(agent.own.change(_put(_own(1))))
        await asyncio.sleep(0)
        asking.cancel()
        await _reached(agent, 1, Phase.RUNNING)
    async with lab.agent() as agent:
        assert list(agent.context.own) == [ident(1)]


async def test_own_containers_of_a_host_that_joined_another_fleet_are_its_own_there(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.own.change(_put(replace(_own(1), host=HostId("bb" * 32))))
        before = await _reached(agent, 1, Phase.RUNNING)
    async with lab.agent() as agent:
        assert agent.context.own[ident(1)].host == HOST
        await agent.take_view(View(revision=1, fleet_id="another"))
        assert (await _reached(agent, 1, Phase.RUNNING)).created == before.created


async def test_an_own_container_is_made_though_the_agent_died_behind_the_answer(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.own.change(_put(_own(1)))
    async with lab.agent() as agent:
        await _reached(agent, 1, Phase.RUNNING)


async def test_an_own_container_is_removed_though_the_agent_died_behind_the_answer(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.own.change(_put(_own(1)))
        await _reached(agent, 1, Phase.RUNNING)
        await agent.own.change(lambda own: replace(own[ident(1)], desired=Desired.REMOVED, force=True))
    async with lab.agent() as agent:
        await gone(agent, 1)
        assert not agent.context.own and lab.leaks() == {}


async def test_names_of_both_origins_are_told_apart_where_they_are_the_same(tmp_path: Path) -> None:
    """A controller that knew nothing of the own one may have given its name away."""
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.own.change(_put(replace(_own(1), name="box2")))
        await agent.take_view(view(instance(2)))
        await phase(agent, 2, Phase.RUNNING)
        with pytest.raises(Ambiguous, match="2 containers are named"):
            ownrules.found(agent.context.view, agent.context.own, "box2")
        assert ownrules.found(agent.context.view, agent.context.own, ident(1)).id == ident(1)
