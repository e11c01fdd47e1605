"""A real controller and a real agent over a fake host: the fleet sees what was made on the host's own socket,
and what it is asked to do with that is done there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.session import Session
from aio.clock import SystemClock
from model.api import (
    ConnectNetwork,
    CreateInstance,
    DisconnectNetwork,
    StopRequest,
    UpdateBandwidth,
    UpdatePorts,
)
from model.errors import AlreadyExists, Exhausted, NotFound, Unavailable, WrongState
from model.records import Desired
from model.spec import Attachment, ContainerSpec, Placement, Publish, Reservations
from model.status import Phase
from tests.support.agentlab import HOST, IMAGE, AgentLab
from tests.support.agents import FakeHost, MemoryChannel, make_host
from tests.support.fleet import Fleet, fleet
from tests.support.hostdocker import HostDocker, host_docker
from tests.support.waiting import until

SPEC = ContainerSpec(
    image=IMAGE,
    args=("serve",),
    seccomp="unconfined",
    stop_grace=1.0,
    networks=(Attachment(network="none"),),
)


def _host() -> FakeHost:
    made = make_host(1)
    made.id = HOST
    return made


@contextlib.asynccontextmanager
async def _session(f: Fleet, docker: HostDocker, epoch: int = 1) -> AsyncIterator[None]:
    """With connections to the host's own API on offer."""
    near, far = MemoryChannel.pair()
    loop = asyncio.get_running_loop()

    async def offer() -> None:
        while True:
            pipe = await docker.port.open_pipe(HOST)
            try:
                await f.controller.pipes.accept(HOST, pipe)
            finally:
                pipe.writer.close()

    tasks = [
        loop.create_task(f.controller.serve_session(HOST, "", far)),
        loop.create_task(Session(docker.agent, epoch=epoch).run(near)),
        *(loop.create_task(offer()) for _ in range(2)),
    ]
    try:
        await until(lambda: f.controller.ready_hosts(), deadline=20)
        yield
    finally:
        await near.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def _both(lab: AgentLab) -> AsyncIterator[tuple[Fleet, HostDocker]]:
    async with (
        fleet(_host(), clock=SystemClock(), connect=False) as f,
        host_docker(lab) as docker,
        _session(f, docker),
    ):
        yield f, docker


async def _made(docker: HostDocker, name: str = "box", start: bool = True, **spec: object) -> str:
    wish = CreateInstance(spec=replace(SPEC, **spec), name=name, start=start)
    made = await docker.port.create_instance(wish)
    if start:
        await docker.port.wait_instance(made.instance.id, "running")
    return made.instance.id


async def _told(f: Fleet, ref: str, phase: Phase) -> None:
    def seen() -> bool:
        return any(
            ref in (i.instance.id, i.instance.name) and i.status.phase is phase
            for i in f.controller.list_instances()
        )

    await until(seen, deadline=20, what=f"{ref} {phase} at the controller")


async def test_own_container_is_shown_by_the_fleet_with_its_host_and_origin(tmp_path: Path) -> None:
    async with _both(AgentLab(tmp_path)) as (f, docker):
        ident = await _made(docker)
        await _told(f, "box", Phase.RUNNING)
        info = f.controller.get_instance("box")
        assert (info.instance.id, info.origin, info.instance.host) == (ident, "host", HOST)
        assert "own socket" in " ".join(f.controller.why("box").reasons)
        assert info.host_name == f.controller.get_host(HOST).host.spec.name
        assert f.controller.locate_instance(ident[:9]) == (ident, HOST)
        assert ident not in f.controller.snapshot().instances, "nothing of it is written"


async def test_own_container_of_before_the_controller_is_told_by_hello(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with fleet(_host(), clock=SystemClock(), connect=False) as f, host_docker(lab) as docker:
        await _made(docker)
        await _made(docker, "brief")
        async with _session(f, docker):
            await _told(f, "box", Phase.RUNNING)
        await docker.port.remove_instance("brief", force=True, volumes=False)
        await until(lambda: len(docker.agent.context.own) == 1, deadline=20)
        async with _session(f, docker, epoch=2):
            await until(lambda: _names(f) == {"box"}, deadline=20)


def _names(f: Fleet) -> set[str]:
    return {info.instance.name for info in f.controller.list_instances()}


async def test_commands_on_an_own_container_are_done_by_its_host(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with _both(lab) as (f, docker):
        ident = await _made(docker)
        await _told(f, "box", Phase.RUNNING)
        fleets = f.controller
        await fleets.stop_instance("box", StopRequest())
        assert (await fleets.wait_instance("box", "stopped")).exit_code == 143
        await fleets.start_instance("box")
        assert (await fleets.wait_instance("box", "running")).phase == Phase.RUNNING
        await fleets.pause_instance("box", paused=True)
        await fleets.wait_instance("box", "paused")
        await fleets.pause_instance("box", paused=False)
        await fleets.wait_instance("box", "unpaused")
        assert (await fleets.rename_instance("box", "crate")).instance.name == "crate"
        assert docker.agent.context.own[next(iter(docker.agent.context.own))].name == "crate"
        with pytest.raises(AlreadyExists):
            await fleets.create_instance(CreateInstance(spec=SPEC, name="crate"))
        await fleets.remove_instance("crate", force=True, volumes=True)
        assert (await fleets.wait_instance(ident, "removed")).exit_code is not None
        await until(lambda: not fleets.list_instances(), deadline=20)
        assert not docker.agent.context.own and lab.leaks() == {}


async def test_commands_on_an_own_container_of_a_host_that_is_away_are_refused(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with fleet(_host(), clock=SystemClock(), connect=False) as f, host_docker(lab) as docker:
        async with _session(f, docker):
            await _made(docker)
            await _told(f, "box", Phase.RUNNING)
        f.controller.pipes._wait = 0.05
        with pytest.raises(Unavailable):
            await f.controller.stop_instance("box", StopRequest())
        assert next(iter(docker.agent.context.own.values())).desired is Desired.RUNNING


async def test_what_the_fleet_made_comes_before_an_own_container_of_its_name(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with fleet(_host(), clock=SystemClock(), connect=False) as f, host_docker(lab) as docker:
        await _made(docker)  # while nobody of the fleet knows of it
        async with _session(f, docker):
            await _told(f, "box", Phase.RUNNING)
            made = await f.controller.create_instance(CreateInstance(spec=SPEC, name="theirs"))
            await f.controller.rename_instance("theirs", "free")
            with pytest.raises(AlreadyExists, match="own socket"):
                await f.controller.rename_instance("free", "box")
            assert f.controller.get_instance("free").instance.id == made.instance.id


async def test_networks_and_ports_of_an_own_container_are_not_the_fleets_to_change(tmp_path: Path) -> None:
    async with _both(AgentLab(tmp_path)) as (f, docker):
        await _made(docker)
        await _told(f, "box", Phase.RUNNING)
        for change in (
            f.controller.update_ports("box", UpdatePorts()),
            f.controller.update_bandwidth("box", UpdateBandwidth()),
            f.controller.connect_network("bridge", ConnectNetwork(container="box")),
            f.controller.disconnect_network("bridge", DisconnectNetwork(container="box")),
        ):
            with pytest.raises(WrongState, match="own socket"):
                await change


async def test_what_own_containers_hold_of_their_host_is_counted(tmp_path: Path) -> None:
    async with _both(AgentLab(tmp_path)) as (f, docker):
        await until(lambda: docker.agent.context.view.networks, deadline=20)
        memory = f.controller.get_host(HOST).host.facts.memory
        port = Publish(target=80, published=8080)
        wish = CreateInstance(
            spec=replace(SPEC, networks=(), ports=(port,)),
            name="big",
            placement=Placement(reservations=Reservations(memory=memory)),
        )
        await docker.port.create_instance(wish)
        await until(lambda: "big" in _names(f), deadline=20)
        little = Placement(reservations=Reservations(memory=1 << 20))
        with pytest.raises(Exhausted):
            await f.controller.create_instance(CreateInstance(spec=SPEC, placement=little))
        with pytest.raises(Exhausted):
            await f.controller.create_instance(CreateInstance(spec=replace(SPEC, networks=(), ports=(port,))))


async def test_own_containers_of_a_host_that_was_removed_are_not_the_fleets_to_show(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with _both(lab) as (f, docker):
        ident = await _made(docker)
        await _told(f, "box", Phase.RUNNING)
        await f.controller.remove_host(HOST, force=True)
        await until(lambda: not f.controller.list_instances(), deadline=20)
        with pytest.raises(NotFound):
            f.controller.get_instance("box")
        assert docker.agent.context.own[next(iter(docker.agent.context.own))].id == ident
        assert next(iter(docker.agent.context.records.values())).running
