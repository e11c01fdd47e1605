"""A real controller and a real agent (over a fake host), joined by a channel in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.host import HostAgent
from agent.runtime.fake import Program
from agent.session import Session
from aio.clock import SystemClock
from model.api import CreateInstance, StopRequest
from model.codec import encode_wire
from model.directory import DirectoryDelta, Member
from model.errors import Exhausted, FlotaError, Forbidden
from model.ids import HostId, InstanceId, ServiceId
from model.spec import ContainerSpec
from model.status import Phase
from model.view import ServiceView, View, ViewDelta, service_key
from model.wire import (
    Ack,
    Delta,
    Follows,
    Goodbye,
    Membership,
    NeedView,
    Ping,
    Pong,
    Welcome,
    decode_agent,
)
from tests.support.agentlab import BRIDGE, HOST, IMAGE, AgentLab, bridge, ident, instance, view
from tests.support.agents import FakeHost, MemoryChannel, make_host
from tests.support.fleet import Fleet, fleet
from tests.support.waiting import until

SPEC = ContainerSpec(image=IMAGE, args=("serve",), seccomp="unconfined", stop_grace=1.0)


def host() -> FakeHost:
    made = make_host(1)
    made.id = HOST
    return made


@contextlib.asynccontextmanager
async def session(f: Fleet, agent: HostAgent, epoch: int = 1) -> AsyncIterator[MemoryChannel]:
    near, far = MemoryChannel.pair()
    loop = asyncio.get_running_loop()
    tasks = [
        loop.create_task(f.controller.serve_session(HOST, "", far)),
        loop.create_task(Session(agent, epoch=epoch).run(near)),
    ]
    try:
        yield near
    finally:
        await near.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # how either ends is the tests' own business


@contextlib.asynccontextmanager
async def joined(lab: AgentLab) -> AsyncIterator[tuple[Fleet, HostAgent]]:
    async with (
        fleet(host(), clock=SystemClock(), connect=False) as f,
        lab.agent() as agent,
        session(f, agent),
    ):
        await until(lambda: f.controller.ready_hosts(), deadline=5)
        yield f, agent


async def test_a_container_lives_from_create_to_removal_through_both(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with joined(lab) as (f, agent):
        made = await f.controller.create_instance(CreateInstance(spec=SPEC, name="one"))
        assert (await f.controller.wait_instance("one", "created")).phase == Phase.CREATED
        await f.controller.start_instance("one")
        assert (await f.controller.wait_instance("one", "running")).phase == Phase.RUNNING
        assert f.controller.get_instance("one").status.endpoints[0].network_name == "bridge"
        await f.controller.stop_instance("one", StopRequest())
        assert (await f.controller.wait_instance("one", "stopped")).exit_code == 143
        await f.controller.start_instance("one")
        await f.controller.wait_instance("one", "running")
        gone = asyncio.ensure_future(f.controller.wait_instance("one", "removed"))
        await asyncio.sleep(0)
        await f.controller.remove_instance("one", force=True, volumes=True)
        await asyncio.wait_for(gone, 5)
        await until(lambda: made.instance.id not in agent.context.view.instances, deadline=5)
        await until(lambda: not agent.tombstones, deadline=5)
    assert lab.leaks() == {}


async def test_a_container_that_removes_itself_tells_its_exit_code_and_is_gone(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    lab.runtime.programs[("brief",)] = Program(code=7)
    async with joined(lab) as (f, _agent):
        spec = ContainerSpec(image=IMAGE, args=("brief",), seccomp="unconfined", auto_remove=True)
        made = await f.controller.create_instance(CreateInstance(spec=spec, start=True))
        ended = await asyncio.wait_for(f.controller.wait_instance(made.instance.id, "removed"), 5)
        assert ended.exit_code == 7
        await until(lambda: f.controller.list_instances() == [], deadline=5)
    assert len([call for call in lab.runtime.calls if call[0] == "start"]) == 1


async def test_what_happened_while_cut_off_is_told_at_the_next_session(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with fleet(host(), clock=SystemClock(), connect=False) as f, lab.agent() as agent:
        async with session(f, agent):
            await until(lambda: f.controller.ready_hosts(), deadline=5)
            made = await f.controller.create_instance(CreateInstance(spec=SPEC, name="one", start=True))
            await f.controller.wait_instance("one", "running")
        lab.runtime.exit(made.instance.id, 9)
        await until(lambda: agent.statuses()[0].phase is Phase.EXITED, deadline=5)
        async with session(f, agent):
            ended = await asyncio.wait_for(f.controller.wait_instance("one", "stopped"), 5)
            assert ended.exit_code == 9


async def script(
    agent: HostAgent, epoch: int = 1, first: View | None = None, ping_every: float = 10.0
) -> tuple[MemoryChannel, asyncio.Task[None]]:
    """A session whose controller is the test; welcomed with an empty View of revision 1."""
    near, far = MemoryChannel.pair()
    task = asyncio.get_running_loop().create_task(Session(agent, epoch=epoch).run(near))
    frame = await far.receive()
    assert frame is not None
    await far.send(encode_wire(Welcome(view=first or view(), ping_every=ping_every)))
    return far, task


async def heard(far: MemoryChannel, kind: type) -> object:
    async with asyncio.timeout(5):
        while True:
            frame = await far.receive()
            assert frame is not None, f"the session ended before a {kind.__name__}"
            message = decode_agent(frame)
            if isinstance(message, kind):
                return message


async def test_pings_are_answered_while_a_view_is_acted_upon(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    slow = asyncio.Event()
    applied = lab.network.apply

    async def apply(plan: object) -> None:
        await slow.wait()
        await applied(plan)

    lab.network.apply = apply
    async with lab.agent() as agent:
        far, task = await script(agent)
        await far.send(encode_wire(Ping(serial=5)))
        assert await heard(far, Pong) == Pong(serial=5)
        slow.set()
        task.cancel()
        await asyncio.wait([task])


async def test_a_delta_that_does_not_fit_asks_for_the_whole(tmp_path: Path) -> None:
    async with AgentLab(tmp_path).agent() as agent:
        far, task = await script(agent)
        await far.send(encode_wire(Delta(delta=ViewDelta(from_revision=7, to_revision=8))))
        assert await heard(far, NeedView) == NeedView(have=1)
        task.cancel()
        await asyncio.wait([task])


async def test_a_membership_is_followed_once_the_kernel_balances_by_it(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    held, serve, serving = asyncio.Event(), lab.network.serve, asyncio.Event()

    async def slow(changes: object) -> None:
        serving.set()
        await held.wait()
        await serve(changes)

    web = ServiceId("web")
    network = replace(bridge(), vip_ranges=("10.99.0.0/24",))
    services = {service_key(BRIDGE, web): ServiceView(name="web", ipv4="10.99.0.1")}
    first = replace(view(), networks={BRIDGE: network}, services=services)
    member = Member(name="web.1", host=HostId("other"), service=web, ipv4="10.9.0.9")
    delta = DirectoryDelta(put={BRIDGE: {InstanceId("x"): member}})
    async with lab.agent() as agent:
        far, task = await script(agent, first=first)
        await heard(far, Ack)
        lab.network.serve = slow
        await far.send(encode_wire(Membership(delta=delta, whole=True, serial=7)))
        await asyncio.wait_for(serving.wait(), 5)
        assert agent.membership.heard[1] == 7 and agent.membership._followed == 0
        held.set()
        assert await heard(far, Follows) == Follows(serial=7)
        await far.send(encode_wire(Membership(delta=delta, whole=True, serial=8)))
        assert await heard(far, Follows) == Follows(serial=8), "also what changes nothing"
        task.cancel()
        await asyncio.wait([task])


async def test_a_silent_controller_ends_the_session(tmp_path: Path) -> None:
    async with AgentLab(tmp_path).agent() as agent:
        _, task = await script(agent, ping_every=0.05)
        with pytest.raises(Exception, match=r"nothing heard from the controller for 0\.15 s"):
            await asyncio.wait_for(task, 5)


async def test_a_goodbye_for_ever_is_forbidden_and_one_to_come_again_is_not(tmp_path: Path) -> None:
    async with AgentLab(tmp_path).agent() as agent:
        for retry in (False, True):
            far, task = await script(agent)
            await far.send(encode_wire(Goodbye(reason="it was removed", retry=retry)))
            with pytest.raises(Exception, match="it was removed") as caught:
                await asyncio.wait_for(task, 5)
            assert isinstance(caught.value, Forbidden) is not retry


async def test_a_view_that_cannot_be_journalled_is_not_acknowledged(tmp_path: Path) -> None:
    async with AgentLab(tmp_path).agent() as agent:
        real = agent._journal.write

        def full(items: list[tuple[str, str, bytes | None]], *, durable: bool = True) -> asyncio.Future[None]:
            if not any(kind == "view" for kind, _, _ in items):
                return real(items, durable=durable)
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.set_exception(Exhausted("the disk of the agent's state folder is full"))
            return future

        agent._journal.write = full  # type: ignore[method-assign]
        with pytest.raises(FlotaError, match="full"):
            await agent.take_view(view(instance()))
        agent._journal.write = real  # type: ignore[method-assign]
        await agent.take_view(view(instance(), instance(2), revision=2))
        assert set(agent._journal.read("instance", object)) == {ident(1), ident(2)}
