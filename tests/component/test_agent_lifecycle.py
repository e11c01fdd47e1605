"""An agent over fakes: from a View to a running container and back to nothing."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from agent import execs, freeze
from agent.runtime.base import State
from agent.runtime.fake import Program
from model.errors import CommandFailed
from model.records import Desired
from model.spec import Mount, Publish, Resources, RestartPolicy
from model.status import Phase
from model.streams import ExecSpec
from model.view import View
from tests.support.agentlab import AgentLab, gone, ident, instance, phase, view, wish
from tests.support.waiting import until

AGAIN = RestartPolicy(condition="always", delay=0.01, max_delay=0.1)


async def test_a_view_with_a_container_makes_it_run(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.take_view(view(instance()))
        status = await phase(agent, 1, Phase.RUNNING)
        assert status.pid > 0 and status.attempt == 1 and status.endpoints[0].ipv4 == "10.9.0.2"
        assert await lab.runtime.state(ident(1)) is State.RUNNING


async def test_a_removed_container_leaves_nothing(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    box = instance(mounts=(Mount(type="volume", target="/data"),), ports=(Publish(target=80),))
    async with lab.agent() as agent:
        await agent.take_view(view(box))
        await phase(agent, 1, Phase.RUNNING)
        await agent.take_view(view(wish(box, desired=Desired.REMOVED, force=True, remove_volumes=True)))
        await gone(agent, 1)
        assert lab.leaks() == {}
        assert agent.context.addresses.held() == {}
    async with lab.agent() as agent:
        assert not agent.statuses()


async def test_a_stop_is_polite_first_and_then_kills(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    lab.runtime.programs[("stubborn",)] = Program(ignores=frozenset({15}))
    box = instance(args=("stubborn",))
    async with lab.agent() as agent:
        await agent.take_view(view(box))
        await phase(agent, 1, Phase.RUNNING)
        await agent.take_view(view(wish(box, desired=Desired.STOPPED, stop_grace=0.05)))
        status = await phase(agent, 1, Phase.EXITED)
        assert status.exit_code == 137
        sent = [call[2] for call in lab.runtime.calls if call[0] == "signal"]
        assert sent == [15, 9]


async def test_a_second_stop_with_less_patience_shortens_the_first(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    lab.runtime.programs[("stubborn",)] = Program(ignores=frozenset({15}))
    box = instance(args=("stubborn",))
    async with lab.agent() as agent:
        await agent.take_view(view(box))
        await phase(agent, 1, Phase.RUNNING)
        await agent.take_view(view(wish(box, desired=Desired.STOPPED, stop_grace=600.0)))
        await until(lambda: ("signal", ident(1), 15) in lab.runtime.calls, deadline=20)
        await agent.take_view(view(wish(box, desired=Desired.STOPPED, stop_grace=0.0)))
        assert (await phase(agent, 1, Phase.EXITED)).exit_code == 137


async def test_other_limits_are_set_under_a_process_once_and_told(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    box = instance(resources=Resources(pids=9))
    async with lab.agent() as agent:
        await agent.take_view(view(box))
        before = await phase(agent, 1, Phase.RUNNING)
        assert before.limits == Resources(pids=9)
        other = replace(box, spec=replace(box.spec, resources=Resources(pids=5)), revision=7)
        await agent.take_view(view(other))
        await until(lambda: agent.statuses()[0].limits == Resources(pids=5), deadline=20)
        after = agent.statuses()[0]
        assert (after.pid, after.limited_for) == (before.pid, 7)
        impossible = replace(other.spec, resources=Resources(nano_cpus=10**15))
        await agent.take_view(view(replace(other, spec=impossible, revision=8)))
        await until(lambda: "this host has" in agent.statuses()[0].message, deadline=20)
        assert agent.statuses()[0].limited_for == 8 and agent.statuses()[0].limits == Resources(pids=5)
        await agent.take_view(view(replace(other, revision=9)))
        await until(lambda: not agent.statuses()[0].message, deadline=20)
        assert [call[0] for call in lab.runtime.calls].count("update") == 2, "what failed may have done half"
        assert agent.statuses()[0].phase is Phase.RUNNING


async def test_a_paused_container_is_thawed_to_be_stopped(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    box = instance()
    async with lab.agent() as agent:
        await agent.take_view(view(wish(box, desired=Desired.PAUSED)))
        await until(lambda: agent.statuses()[0].paused, deadline=20)
        await agent.take_view(view(wish(box, desired=Desired.REMOVED, force=True)))
        await gone(agent, 1)
        operations = [call[0] for call in lab.runtime.calls if call[0] in ("pause", "signal", "resume")]
        assert operations == ["pause", "signal", "resume"]


async def test_an_exit_is_reported_once_with_its_code(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.take_view(view(instance()))
        await phase(agent, 1, Phase.RUNNING)
        lab.runtime.exit(ident(1), 3)
        status = await phase(agent, 1, Phase.EXITED)
        assert status.exit_code == 3 and status.message == "exited with code 3"
        report = await agent.reporter.next()
        assert [e.attributes["exitCode"] for e in report.events if e.action == "die"] == ["3"]


async def test_a_program_that_is_not_there_fails_with_127_and_its_words(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    lab.runtime.programs[("nothing",)] = Program(missing=True)
    async with lab.agent() as agent:
        await agent.take_view(view(instance(args=("nothing",))))
        status = await phase(agent, 1, Phase.FAILED)
        assert status.exit_code == 127 and "not found" in status.message
        await until(lambda: not agent.workers[ident(1)].record.making, deadline=20)
        assert agent.statuses()[0].exit_code == 127
        assert set(lab.leaks()) <= {"roots", "folders"}


async def test_a_start_that_fails_keeps_its_reason_after_the_clean_up(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    lab.runtime.fail("start", CommandFailed('runc failed: exec "x": permission denied'))
    async with lab.agent() as agent:
        await agent.take_view(view(instance()))
        await phase(agent, 1, Phase.FAILED)
        await until(lambda: not agent.workers[ident(1)].record.making, deadline=20)
        status = agent.statuses()[0]
        assert status.exit_code == 126 and "permission denied" in status.message


async def test_a_port_that_is_taken_fails_before_anything_is_created(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    lab.network.foreign_ports.add(("tcp", 8080))
    async with lab.agent() as agent:
        await agent.take_view(view(instance(ports=(Publish(target=80, published=8080),))))
        status = await phase(agent, 1, Phase.FAILED)
        assert "8080" in status.message
        assert not [call for call in lab.runtime.calls if call[0] == "create"]
        await until(lambda: agent.context.addresses.held() == {}, deadline=20)


async def test_two_ports_of_the_hosts_choice_differ(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.take_view(view(instance(ports=(Publish(target=80), Publish(target=81)))))
        status = await phase(agent, 1, Phase.RUNNING)
        assert len({port.published for port in status.ports}) == 2


async def test_containers_that_start_at_once_get_ports_and_addresses_of_their_own(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    boxes = [instance(n, ports=(Publish(target=80),)) for n in range(1, 9)]
    async with lab.agent() as agent:
        await agent.take_view(view(*boxes))
        for n in range(1, 9):
            await phase(agent, n, Phase.RUNNING)
        assert len({s.ports[0].published for s in agent.statuses()}) == 8
        assert len({s.endpoints[0].ipv4 for s in agent.statuses()}) == 8


async def test_a_restart_policy_starts_it_again_and_counts(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.take_view(view(instance(restart=AGAIN)))
        await phase(agent, 1, Phase.RUNNING)
        lab.runtime.exit(ident(1), 1)
        await until(lambda: agent.statuses()[0].restarts == 1, deadline=20)
        status = await phase(agent, 1, Phase.RUNNING)
        assert status.attempt == 1


async def test_on_failure_gives_up_after_its_attempts(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    lab.runtime.programs[("bad",)] = Program(code=1)
    policy = RestartPolicy(condition="on-failure", max_attempts=2, delay=0.01)
    async with lab.agent() as agent:
        await agent.take_view(view(instance(args=("bad",), restart=policy)))
        status = await phase(agent, 1, Phase.EXITED)
        assert status.restarts == 2
        assert len([call for call in lab.runtime.calls if call[0] == "start"]) == 3


async def test_a_restart_that_fails_is_tried_again(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.take_view(view(instance(restart=AGAIN)))
        await phase(agent, 1, Phase.RUNNING)
        lab.runtime.fail("create", CommandFailed("runc failed: device busy"), times=2)
        lab.runtime.exit(ident(1), 1)
        await until(lambda: agent.statuses()[0].restarts == 3, deadline=20)
        await phase(agent, 1, Phase.RUNNING)


async def test_an_image_that_a_power_loss_took_comes_again_and_its_root_stays(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.take_view(view(instance(restart=AGAIN)))
        await phase(agent, 1, Phase.RUNNING)
        root = lab.images.made[ident(1)]
    lab.reboot()
    lab.images.available = {name: image for image in lab.images.list() for name in image.names}
    lab.images.images.clear()
    async with lab.agent() as agent:
        await phase(agent, 1, Phase.RUNNING)
        assert lab.images.images and lab.images.made == {ident(1): root}


async def test_a_killed_container_stays_down_whatever_its_policy(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.take_view(view(instance(restart=AGAIN)))
        await phase(agent, 1, Phase.RUNNING)
        agent.workers[ident(1)].killed()
        lab.runtime.exit(ident(1), 137)
        await phase(agent, 1, Phase.EXITED)


async def test_a_new_attempt_ends_the_running_one_and_starts_again(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    box = instance()
    async with lab.agent() as agent:
        await agent.take_view(view(box))
        first = await phase(agent, 1, Phase.RUNNING)
        await agent.take_view(view(wish(box, attempt=2)))
        await until(lambda: agent.statuses()[0].attempt == 2, deadline=20)
        second = await phase(agent, 1, Phase.RUNNING)
        assert second.pid != first.pid and second.restarts == 0


async def test_a_created_container_waits_for_its_start(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    box = instance(desired=Desired.CREATED)
    async with lab.agent() as agent:
        await agent.take_view(view(box))
        await phase(agent, 1, Phase.CREATED)
        assert not [call for call in lab.runtime.calls if call[0] == "create"]
        record = await agent.workers[ident(1)].held()
        assert record.live and not record.started and agent.statuses()[0].phase is Phase.CREATED
        await agent.take_view(view(wish(box, desired=Desired.RUNNING)))
        await phase(agent, 1, Phase.RUNNING)
        assert len([call for call in lab.runtime.calls if call[0] == "create"]) == 1


async def test_a_container_that_removes_itself_is_not_made_again(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    lab.runtime.programs[("brief",)] = Program(code=0)
    box = instance(args=("brief",), auto_remove=True)
    async with lab.agent() as agent:
        await agent.take_view(view(box))
        await until(lambda: ident(1) in agent.tombstones, deadline=20)
        await agent.take_view(view(box, instance(2), revision=2))
        await phase(agent, 2, Phase.RUNNING)
        assert ident(1) not in agent.workers
    async with lab.agent() as agent:
        assert ident(1) not in agent.workers
        report = await agent.reporter.next()
        assert report.forgotten == (ident(1),)
        await agent.take_view(view(instance(2), revision=3))
        assert not agent.tombstones
    starts = [call for call in lab.runtime.calls if call == ("start", ident(1))]
    assert len(starts) == 1


async def test_a_stop_during_a_pull_ends_the_pull(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    held = lab.runtime.hold("create")
    box = instance()
    async with lab.agent() as agent:
        await agent.take_view(view(box))
        await until(lambda: [c for c in lab.runtime.calls if c[0] == "create"], deadline=20)
        await agent.take_view(view(wish(box, desired=Desired.STOPPED)))
        held.set()
        status = await phase(agent, 1, Phase.CREATED)
        await until(lambda: not agent.workers[ident(1)].record.making, deadline=20)
        assert status.exit_code is None
        assert not [call for call in lab.runtime.calls if call[0] == "start"]


async def test_a_first_view_that_is_empty_removes_what_is_known(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.take_view(view(instance()))
        await phase(agent, 1, Phase.RUNNING)
    async with lab.agent() as agent:
        await phase(agent, 1, Phase.RUNNING)
        await agent.take_view(View(revision=2))
        await gone(agent, 1)
    assert lab.leaks() == {}


async def test_two_who_hold_a_container_still_do_so_one_after_the_other(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.take_view(view(instance()))
        await phase(agent, 1, Phase.RUNNING)
        worker = agent.workers[ident(1)]
        let_go = asyncio.Event()

        async def second() -> State | None:
            async with freeze.still(agent.context, lambda: worker.record):
                let_go.set()
                return await lab.runtime.state(ident(1))

        async with asyncio.TaskGroup() as group, freeze.still(agent.context, lambda: worker.record):
            waiting = group.create_task(second())
            with suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await let_go.wait()
            assert not let_go.is_set() and await lab.runtime.state(ident(1)) is State.PAUSED
        assert waiting.result() is State.PAUSED
        assert await lab.runtime.state(ident(1)) is State.RUNNING
        assert not freeze.is_still(agent.context, ident(1))


async def test_a_process_that_enters_a_container_is_waited_for_before_it_stands_still(tmp_path: Path) -> None:
    """And one that comes later waits: the runtime starts nothing in a container that is paused."""
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.take_view(view(instance()))
        await phase(agent, 1, Phase.RUNNING)
        worker, starting = agent.workers[ident(1)], lab.runtime.hold("exec")
        stood: list[str] = []

        async def enter(name: str) -> None:
            await (await execs.start(agent.context, ident(1), ExecSpec(args=(name,)))).close()
            stood.append(name)

        async def hold() -> None:
            async with freeze.still(agent.context, lambda: worker.record):
                assert await lab.runtime.state(ident(1)) is State.PAUSED
                group.create_task(enter("late"))
                starting.set()
                await asyncio.sleep(0)
                stood.append("still")

        async with asyncio.TaskGroup() as group:
            group.create_task(enter("early"))
            await until(lambda: ("exec", ident(1), ("early",)) in lab.runtime.calls, deadline=5)
            group.create_task(hold())
            await asyncio.sleep(0)
            assert not freeze.is_still(agent.context, ident(1))
            starting.set()
        assert stood == ["early", "still", "late"]
