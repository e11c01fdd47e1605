"""An agent killed before or after any of its steps: the next one makes it right, and nothing leaks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from agent.host import HostAgent
from agent.runtime.base import State
from agent.runtime.fake import Program
from model.image import ImageConfig
from model.records import Desired, Instance
from model.spec import Mount, Publish, RestartPolicy
from model.status import Phase
from tests.support.agentlab import AgentLab, gone, ident, instance, phase, view, wish
from tests.support.tripwire import Side, Tripwire, until_crash
from tests.support.waiting import until

BOX = instance(
    mounts=(Mount(type="volume", target="/data"), Mount(type="volume", source="named", target="/named")),
    ports=(Publish(target=80),),
)
GONE = wish(BOX, desired=Desired.REMOVED, force=True, remove_volumes=True)
BRIEF = instance(2, args=("brief",), auto_remove=True, mounts=(Mount(type="volume", target="/scratch"),))
Scenario = Callable[[AgentLab], Awaitable[None]]
MOST = 90
"""More steps than any scenario has; a number beyond a scenario's end is a run without a crash."""


def lab_in(folder: Path) -> AgentLab:
    lab = AgentLab(folder, ImageConfig(volumes=("/from-image",)))
    lab.runtime.programs[("brief",)] = Program(code=7)
    return lab


async def life(lab: AgentLab) -> None:
    """Made, run, stopped, started again, removed."""
    async with lab.agent() as agent:
        await agent.take_view(view(BOX))
        await phase(agent, 1, Phase.RUNNING)
        await agent.take_view(view(wish(BOX, desired=Desired.STOPPED), revision=2))
        await phase(agent, 1, Phase.EXITED)
        await agent.take_view(view(wish(BOX, attempt=2), revision=3))
        await phase(agent, 1, Phase.RUNNING)
        lab.removing = True
        await agent.take_view(view(GONE, revision=4))
        await gone(agent, 1)


async def brief(lab: AgentLab) -> None:
    async with lab.agent() as agent:
        await agent.take_view(view(BRIEF))
        await until(lambda: ident(2) in agent.tombstones, deadline=5)


async def adopted(lab: AgentLab) -> None:
    """A restart over a running container, twice."""
    async with lab.agent() as agent:
        await agent.take_view(view(BOX))
        await phase(agent, 1, Phase.RUNNING)
    async with lab.agent() as agent:
        await phase(agent, 1, Phase.RUNNING)
        await agent.take_view(view(BOX, revision=9))


async def frozen(lab: AgentLab) -> None:
    """Paused and resumed."""
    async with lab.agent() as agent:
        await agent.take_view(view(BOX))
        await phase(agent, 1, Phase.RUNNING)
        for desired, paused in ((Desired.PAUSED, True), (Desired.RUNNING, False)):
            await agent.take_view(view(wish(BOX, desired=desired), revision=2 + (not paused)))
            await told_paused(agent, paused)


async def told_paused(agent: HostAgent, paused: bool) -> None:
    def told() -> bool:
        record = agent.context.records[ident(1)]
        return record.running and record.paused is paused and not record.switching

    await until(told, deadline=5, what=f"paused is {paused}")


async def crash(lab: AgentLab, scenario: Scenario, at: int, side: Side) -> Tripwire:
    wire = Tripwire(at=at, side=side)
    lab.trip(wire)
    await until_crash(wire, scenario(lab), deadline=20)  # type: ignore[arg-type]
    lab.trip(None)
    return wire


def processes(lab: AgentLab) -> list[str]:
    return [key for key, box in lab.fakes[0]._containers.items() if box.process.exit is None]


async def settle(agent: HostAgent, *wishes: Instance, revision: int = 20) -> None:
    """What the controller says, whatever the crashed agent had heard."""
    await agent.take_view(view(*wishes, revision=revision))


@pytest.mark.parametrize("side", ["before", "after"])
async def test_a_life_cut_short_at_any_step_converges_and_leaves_nothing(tmp_path: Path, side: Side) -> None:
    seen: set[str] = set()
    for at in range(MOST):
        lab = lab_in(tmp_path / f"{at}")
        wire = await crash(lab, life, at, side)
        seen |= set(wire.steps)
        async with lab.agent() as agent:
            if not lab.removing:
                await _runs_once_more(lab, agent)
            await settle(agent, wish(GONE, attempt=3), revision=21)
            await gone(agent, 1)
            assert agent.context.addresses.held() == {}
            await agent.context.volumes.prune(all_unused=True)
            await settle(agent, revision=22)
        assert lab.leaks() == {}, (at, side, wire.steps[-1])
        if len(wire.steps) <= at:
            break
    else:
        raise AssertionError("the scenario has more steps than were tried")
    assert {"runtime.create", "runtime.start", "network.attach", "images.remove_root"} <= seen


async def _runs_once_more(lab: AgentLab, agent: HostAgent) -> None:
    await settle(agent, wish(BOX, attempt=3))
    await until(lambda: agent.context.records[ident(1)].attempt == 3, deadline=5)
    await phase(agent, 1, Phase.RUNNING)
    assert processes(lab) == [ident(1)]
    assert list(agent.context.addresses.held().values()) == [ident(1)]


@pytest.mark.parametrize("side", ["before", "after"])
async def test_a_container_that_runs_once_runs_once_wherever_the_agent_dies(
    tmp_path: Path, side: Side
) -> None:
    for at in range(MOST):
        lab = lab_in(tmp_path / f"{at}")
        wire = await crash(lab, brief, at, side)
        async with lab.agent() as agent:
            await settle(agent, BRIEF)
            await until(lambda: ident(2) in agent.tombstones, deadline=5)
            last = agent.tombstones[ident(2)]
            assert last.exit_code == 7, (at, side, wire.steps[-1])
        starts = [call for call in lab.fakes[0].calls if call[0] == "start"]
        assert len(starts) == 1, (at, side, wire.steps[-1])
        assert lab.leaks() == {}, (at, side, wire.steps[-1])
        if len(wire.steps) <= at:
            break
    else:
        raise AssertionError("the scenario has more steps than were tried")


@pytest.mark.parametrize("side", ["before", "after"])
async def test_a_crash_while_adopting_changes_nothing_of_what_runs(tmp_path: Path, side: Side) -> None:
    for at in range(MOST):
        lab = lab_in(tmp_path / f"{at}")
        async with lab.agent() as agent:
            await agent.take_view(view(BOX))
            before = await phase(agent, 1, Phase.RUNNING)
        wire = await crash(lab, adopted, at, side)
        async with lab.agent() as agent:
            await settle(agent, BOX)
            after = await phase(agent, 1, Phase.RUNNING)
            assert (after.pid, after.endpoints, after.restarts) == (before.pid, before.endpoints, 0)
        changed = [c for c in lab.fakes[0].calls if c[0] in ("create", "start", "delete", "signal")]
        assert [c[0] for c in changed] == ["create", "start"], (at, side, wire.steps[-1])
        if len(wire.steps) <= at:
            break


@pytest.mark.parametrize("desired", [Desired.RUNNING, Desired.PAUSED])
@pytest.mark.parametrize("side", ["before", "after"])
async def test_a_pause_cut_short_leaves_no_container_otherwise_than_is_told(
    tmp_path: Path, side: Side, desired: Desired
) -> None:
    for at in range(MOST):
        lab = lab_in(tmp_path / f"{at}")
        wire = await crash(lab, frozen, at, side)
        async with lab.agent() as agent:
            await settle(agent, wish(BOX, desired=desired))
            await until(lambda: ident(1) in agent.context.records, deadline=5)
            await told_paused(agent, desired is Desired.PAUSED)
            wanted = State.PAUSED if desired is Desired.PAUSED else State.RUNNING
            assert await lab.runtime.state(ident(1)) is wanted, (at, side, wire.steps[-1])
        if len(wire.steps) <= at:
            break
    else:
        raise AssertionError("the scenario has more steps than were tried")
    assert {"runtime.pause", "runtime.resume"} <= set(wire.steps)


async def test_a_reboot_starts_again_by_policy_and_only_then(tmp_path: Path) -> None:
    lab = lab_in(tmp_path)
    always = wish(BOX, spec=instance(restart=RestartPolicy(condition="always", delay=0.01)).spec)
    async with lab.agent() as agent:
        await agent.take_view(view(always, instance(3)))
        await phase(agent, 1, Phase.RUNNING)
        await phase(agent, 3, Phase.RUNNING)
    lab.reboot()
    async with lab.agent() as agent:
        again = await phase(agent, 1, Phase.RUNNING)
        assert again.restarts == 1
        lost = await phase(agent, 3, Phase.EXITED)
        assert lost.exit_code is None and "restarted" in lost.message
        assert processes(lab) == [ident(1)]


async def test_an_exit_while_no_agent_lived_is_reported_with_its_code(tmp_path: Path) -> None:
    lab = lab_in(tmp_path)
    async with lab.agent() as agent:
        await agent.take_view(view(BOX))
        await phase(agent, 1, Phase.RUNNING)
    lab.runtime.exit(ident(1), 43)
    async with lab.agent() as agent:
        assert (await phase(agent, 1, Phase.EXITED)).exit_code == 43


async def test_containers_roots_and_spaces_of_nobody_go_at_the_start(tmp_path: Path) -> None:
    lab = lab_in(tmp_path)
    async with lab.agent() as agent:
        await agent.take_view(view(BOX))
        await phase(agent, 1, Phase.RUNNING)
    (tmp_path / "state" / "journal.db").unlink()
    async with lab.agent() as agent:
        left = set(lab.leaks())
        assert left == {"volumes"}, left
        assert not agent.statuses()
