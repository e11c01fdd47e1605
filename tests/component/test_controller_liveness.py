"""Hosts that fall silent, die, come back, and pretend: a real controller on virtual time."""

from __future__ import annotations

import asyncio

import pytest

from aio.clock import VirtualClock
from controller.store.memory import MemoryStore
from model.api import HostAway
from model.errors import InvalidInput
from model.records import Desired
from model.spec import ContainerSpec, Replicated, ServiceSpec
from model.status import HostState, Phase
from tests.support.agents import FakeAgent, MemoryChannel, make_host
from tests.support.fleet import Fleet, fleet

SPEC = ServiceSpec(name="web", container=ContainerSpec(image="x"), mode=Replicated(replicas=3))


def state(f: Fleet, number: int) -> HostState:
    return f.controller.get_host(f"host{number}").host.state


def running_on(f: Fleet) -> list[str]:
    return sorted(
        i.host_name
        for i in f.controller.get_service("web").instances
        if i.status.phase is Phase.RUNNING and i.instance.desired is Desired.RUNNING
    )


async def serving(clock: VirtualClock, f: Fleet) -> None:
    await clock.advance(0.2)
    await f.controller.create_service(SPEC)
    await clock.advance(1.0)
    assert running_on(f) == ["host1", "host2", "host3"]


async def test_replicas_of_a_cut_off_host_run_elsewhere_within_five_seconds_and_surplus_goes_on_return() -> (
    None
):
    clock = VirtualClock()
    async with fleet(*(make_host(n) for n in (1, 2, 3)), clock=clock) as f:
        await serving(clock, f)
        lone = f.hosts[f.controller.locate_host("host3")]
        f.agents[lone.id].channel.sever()
        await clock.advance(2.2)
        assert state(f, 3) is HostState.UNKNOWN
        assert running_on(f).count("host3") == 1, "unknown is not lost"
        await clock.advance(2.8)
        assert state(f, 3) is HostState.LOST
        assert len(running_on(f)) == 3 and "host3" not in running_on(f)
        assert len(lone.statuses) == 1, "what was cut off runs on"
        f.agents.pop(lone.id).channel.heal()
        await f.connect(lone.id)
        await clock.advance(0.2)
        assert state(f, 3) is HostState.READY
        assert not lone.statuses, "the surplus is gone"
        assert len(f.controller.get_service("web").instances) == 3
        why = f.controller.why("web")
        assert any("host3 is lost: no answer for 3 s" in reason for reason in why.reasons)


async def test_agent_restart_makes_its_host_unknown_at_once_but_loses_nothing() -> None:
    clock = VirtualClock()
    async with fleet(*(make_host(n) for n in (1, 2, 3)), clock=clock) as f:
        await serving(clock, f)
        host = f.controller.locate_host("host2")
        before = dict(f.hosts[host].statuses)
        f.disconnect(host)
        await clock.advance(0.05)
        assert state(f, 2) is HostState.UNKNOWN
        await clock.advance(2.0)
        await f.connect(host)
        await clock.advance(0.5)
        assert state(f, 2) is HostState.READY
        assert f.hosts[host].statuses == before
        assert running_on(f) == ["host1", "host2", "host3"]


async def test_most_of_the_fleet_vanishing_at_once_is_held_and_said() -> None:
    clock = VirtualClock()
    async with fleet(*(make_host(n) for n in (1, 2, 3)), clock=clock) as f:
        await serving(clock, f)
        for name in ("host2", "host3"):
            f.agents[f.controller.locate_host(name)].channel.sever()
        await clock.advance(6)
        assert state(f, 2) is HostState.UNKNOWN
        assert "2 of 3 hosts vanished at once" in f.controller.heartbeats.held
        assert any("vanished" in reason for reason in f.controller.why("host2").reasons)
        await clock.advance(30)
        assert state(f, 2) is HostState.LOST
        assert running_on(f) == ["host1"] * 3


async def test_new_controller_gives_every_host_a_fresh_term() -> None:
    clock, store = VirtualClock(), MemoryStore()
    async with fleet(*(make_host(n) for n in (1, 2, 3)), clock=clock, store=store) as f:
        await serving(clock, f)
        await f.kill()
        await clock.advance(60)
        await f.start()
        await clock.advance(1)
        assert state(f, 1) is HostState.READY, "agents need a moment to come back"
        await clock.advance(8)
        assert state(f, 1) is HostState.UNKNOWN
        for host in f.hosts:
            await f.connect(host)
        await clock.advance(6)
        assert running_on(f) == ["host1", "host2", "host3"]
        assert {state(f, n) for n in (1, 2, 3)} == {HostState.READY}


async def test_host_that_never_answers_a_new_controller_is_lost_after_its_term() -> None:
    clock, store = VirtualClock(), MemoryStore()
    async with fleet(*(make_host(n) for n in range(1, 5)), clock=clock, store=store) as f:
        await serving_four(clock, f)
        await f.kill()
        await f.start()
        for host in list(f.hosts)[:3]:
            await f.connect(host)
        await clock.advance(11)
        assert state(f, 4) is HostState.LOST


async def serving_four(clock: VirtualClock, f: Fleet) -> None:
    await clock.advance(0.2)
    await f.controller.create_service(SPEC)
    await clock.advance(1.0)


async def test_host_whose_absence_was_announced_keeps_its_containers_and_its_return_ends_that() -> None:
    clock = VirtualClock()
    async with fleet(*(make_host(n) for n in (1, 2, 3, 4)), clock=clock) as f:
        await serving_four(clock, f)
        host = f.controller.locate_host("host4")
        before = set(f.controller.snapshot().instances)
        await f.controller.expect_away("host4", HostAway(seconds=60))
        await f.agents[host].channel.close()
        await clock.advance(30)
        assert state(f, 4) is HostState.UNKNOWN
        await f.connect(host)
        await clock.advance(1)
        assert state(f, 4) is HostState.READY and set(f.controller.snapshot().instances) == before
        await f.agents[host].channel.close()
        await clock.advance(4)
        assert state(f, 4) is HostState.LOST, "of that once alone it was told"
        with pytest.raises(InvalidInput, match="seconds: 601 is not between"):
            await f.controller.expect_away("host4", HostAway(seconds=601))


async def test_second_machine_with_a_hosts_certificate_is_turned_away_while_the_first_answers() -> None:
    clock = VirtualClock()
    async with fleet(make_host(1), clock=clock) as f:
        await clock.advance(1)
        [first] = f.agents.values()
        clone = make_host(1)
        clone.boot_id = "another machine"
        near, far = MemoryChannel.pair()
        second = FakeAgent(clone, near)
        f._spawn(second.run())
        await asyncio.wait_for(f.controller.serve_session(clone.id, "", far), 5)
        await clock.advance(0.1)
        assert second.goodbye is not None and "another machine" in second.goodbye.reason
        assert first.goodbye is None and f.controller.sessions.connected(clone.id)


async def test_newer_session_of_the_same_agent_replaces_the_older() -> None:
    clock = VirtualClock()
    async with fleet(make_host(1), clock=clock) as f:
        await clock.advance(1)
        [(host, first)] = f.agents.items()
        second = await f.connect(host)
        await clock.advance(1)
        assert first.goodbye is not None and first.goodbye.retry
        assert second.welcomed.is_set() and state(f, 1) is HostState.READY


async def test_removed_host_is_told_not_to_come_back() -> None:
    clock = VirtualClock()
    async with fleet(make_host(1), make_host(2), clock=clock) as f:
        await clock.advance(1)
        host = f.controller.locate_host("host1")
        agent = f.agents[host]
        await f.controller.remove_host("host1", force=True)
        await clock.advance(0.5)
        assert agent.goodbye is not None and not agent.goodbye.retry
        again = await f.connect(host)
        await clock.advance(0.5)
        assert again.goodbye is not None and not again.goodbye.retry


async def test_flapping_host_gets_no_new_work_for_a_while() -> None:
    clock = VirtualClock()
    async with fleet(*(make_host(n) for n in (1, 2, 3, 4)), clock=clock) as f:
        host = f.controller.locate_host("host4")
        for _ in range(3):
            await clock.advance(1)
            f.agents.pop(host).channel.sever()
            await clock.advance(5)
            await f.connect(host)
        await clock.advance(0.5)
        assert state(f, 4) is HostState.READY
        await f.controller.create_service(SPEC)
        await clock.advance(1)
        assert "host4" not in running_on(f)
        assert any("settling" in c for c in f.controller.get_host("host4").conditions)
