"""Health on a host: probes of every kind, what becomes of their results, and when they are made."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from agent.host import HostAgent
from agent.runtime.fake import FakeRuntime, Program
from model.ids import ServiceId
from model.image import ImageConfig
from model.records import Desired, Instance
from model.spec import ExecProbe, HealthCheck, HttpProbe, Publish, RestartPolicy, ShellProbe, TcpProbe
from model.status import Health, InstanceStatus, Phase
from tests.support.agentlab import AgentLab, gone, ident, instance, phase, view, wish
from tests.support.waiting import until

CHECK = ExecProbe(args=("check",))
QUICK = HealthCheck(probe=CHECK, interval=0.02, retries=2, timeout=5.0)
WELL, ILL = Program(code=0, stdout=b"fine\n"), Program(code=1, stderr=b"no answer\n")


def of_service(box: Instance) -> Instance:
    return wish(box, service=ServiceId("web"), service_name="web")


def status_of(agent: HostAgent, number: int = 1) -> InstanceStatus:
    return next(s for s in agent.statuses() if s.instance == ident(number))


async def health(agent: HostAgent, *wanted: Health) -> InstanceStatus:
    await until(lambda: status_of(agent).health in wanted, deadline=5, what=f"health {wanted}")
    return status_of(agent)


def execs(runtime: FakeRuntime) -> int:
    return sum(call[0] == "exec" for call in runtime.calls)


class Listener:
    """A `Dial` to one socket of this process, whatever the container; `answer` is what it says when asked."""

    def __init__(self, answer: bytes = b"HTTP/1.1 204 No Content\r\n\r\n") -> None:
        self.answer = answer
        self.asked = b""
        self.to: list[tuple[str, int]] = []
        self.there = True

    async def dial(self, pid: int, address: str, port: int) -> socket.socket:
        self.to.append((address, port))
        if not self.there:
            raise ConnectionRefusedError(111, "refused")
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        asyncio.get_running_loop().call_soon(self._serve, theirs)
        return ours

    def _serve(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()

        def readable() -> None:
            self.asked += connection.recv(4096)
            loop.remove_reader(connection)
            connection.sendall(self.answer)
            connection.close()

        if self.answer:
            loop.add_reader(connection, readable)
        else:
            connection.close()


async def test_health_of_a_good_command_is_known_at_once_with_its_output(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    lab.runtime.programs[("check",)] = WELL
    async with lab.agent() as agent:
        began = asyncio.get_running_loop().time()
        await agent.take_view(view(instance(health=HealthCheck(probe=CHECK))))
        await health(agent, "healthy")
        assert asyncio.get_running_loop().time() - began < 10, "no interval is waited for"
        log = agent.prober.log(agent.workers[ident(1)].record)
        assert (log.status, log.failing_streak) == ("healthy", 0)
        assert [(r.exit_code, r.output) for r in log.log] == [(0, "fine\n")]
        events = (await agent.reporter.next()).events
        assert [e.action for e in events if e.action.startswith("health")] == ["health_status: healthy"]


async def test_health_is_starting_from_the_moment_it_runs(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    held = lab.runtime.hold("exec")
    async with lab.agent() as agent:
        await agent.take_view(view(of_service(instance(health=QUICK))))
        status = await phase(agent, 1, Phase.RUNNING)
        assert status.health == "starting" and not status.ready
        lab.runtime.programs[("check",)] = WELL
        held.set()
        assert (await health(agent, "healthy")).ready


async def test_health_goes_bad_and_good_again_and_tells_why(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    lab.runtime.programs[("check",)] = WELL
    async with lab.agent() as agent:
        await agent.take_view(view(instance(health=QUICK)))
        await health(agent, "healthy")
        lab.runtime.programs[("check",)] = ILL
        status = await health(agent, "unhealthy")
        assert status.health_message == "no answer" and not status.ready and status.phase is Phase.RUNNING
        await until(lambda: len(agent.prober.log(agent.workers[ident(1)].record).log) == 5, deadline=5)
        assert agent.prober.log(agent.workers[ident(1)].record).failing_streak >= 2
        lab.runtime.programs[("check",)] = WELL
        status = await health(agent, "healthy")
        assert status.health_message == "" and status.ready


async def test_health_command_that_hangs_is_killed_and_counts_as_a_failure(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    hanging = HealthCheck(probe=CHECK, interval=0.01, retries=1, timeout=0.05)
    async with lab.agent() as agent:
        await agent.take_view(view(instance(health=hanging)))
        status = await health(agent, "unhealthy")
        assert "exceeded timeout" in status.health_message
        container = lab.fakes[0]._containers[ident(1)]
        assert all(p.exit is not None and p.exit.code == 137 for p in container.execs[:-1])


async def test_health_command_that_is_not_there_or_says_too_much_is_bounded(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    lab.runtime.programs[("check",)] = Program(missing=True)
    async with lab.agent() as agent:
        await agent.take_view(view(instance(health=QUICK)))
        assert "not found" in (await health(agent, "unhealthy")).health_message
        lab.runtime.programs[("check",)] = Program(code=0, stdout=b"\xff" * 100_000)
        await health(agent, "healthy")
        log = agent.prober.log(agent.workers[ident(1)].record)
        assert len(log.log[-1].output) == 4096


async def test_health_check_of_the_image_is_done_by_its_shell(tmp_path: Path) -> None:
    config = ImageConfig(
        cmd=("serve",), health=HealthCheck(probe=ShellProbe(command="a || b")), shell=("/bin/bash", "-ec")
    )
    lab = AgentLab(tmp_path, config)
    lab.runtime.programs[("/bin/bash", "-ec", "a || b")] = WELL
    async with lab.agent() as agent:
        await agent.take_view(view(instance()))
        await health(agent, "healthy")
        await agent.take_view(view(instance(), instance(2, health=HealthCheck(disabled=True)), revision=2))
        assert (await phase(agent, 2, Phase.RUNNING)).health == ""


async def test_health_is_not_asked_of_a_paused_or_stopping_container(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    lab.runtime.programs[("check",)] = WELL
    lab.runtime.programs[("stubborn",)] = Program(ignores=frozenset({15}))
    box = instance(health=QUICK, args=("stubborn",))
    async with lab.agent() as agent:
        await agent.take_view(view(box))
        await health(agent, "healthy")
        await agent.take_view(view(wish(box, desired=Desired.PAUSED), revision=2))
        await until(lambda: status_of(agent).paused, deadline=5)
        before = execs(lab.runtime)
        await asyncio.sleep(0.1)
        assert execs(lab.runtime) == before and not status_of(agent).ready
        await agent.take_view(view(box, revision=3))
        await until(lambda: execs(lab.runtime) > before, deadline=5)
        assert (await health(agent, "healthy")).ready
        await agent.take_view(view(wish(box, desired=Desired.STOPPED, stop_grace=0.2), revision=4))
        await until(lambda: ("signal", ident(1), 15) in lab.runtime.calls, deadline=5)
        before = execs(lab.runtime)
        await phase(agent, 1, Phase.EXITED)
        assert execs(lab.runtime) == before
        assert status_of(agent).health == ""


async def test_health_begins_anew_with_each_run(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    lab.runtime.programs[("check",)] = WELL
    box = instance(health=HealthCheck(probe=CHECK), restart=RestartPolicy(condition="always", delay=0.01))
    async with lab.agent() as agent:
        await agent.take_view(view(box))
        await health(agent, "healthy")
        held = lab.runtime.hold("exec")
        lab.runtime.exit(ident(1), 1)
        await until(lambda: status_of(agent).restarts == 1, deadline=5)
        assert (await phase(agent, 1, Phase.RUNNING)).health == "starting"
        held.set()
        await health(agent, "healthy")


async def test_health_is_adopted_by_the_next_agent_and_looked_after_again(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    lab.runtime.programs[("check",)] = WELL
    box = instance(health=HealthCheck(probe=CHECK))
    async with lab.agent() as agent:
        await agent.take_view(view(box))
        await health(agent, "healthy")
    lab.runtime.programs[("check",)] = ILL
    before = execs(lab.runtime)
    async with lab.agent() as agent:
        assert status_of(agent).health == "healthy", "what is known stands until a look says otherwise"
        await until(lambda: execs(lab.runtime) > before, deadline=5)
        await agent.take_view(view(wish(box, desired=Desired.REMOVED, force=True), revision=2))
        await gone(agent, 1)
    assert lab.leaks() == {}


async def test_health_probe_is_put_down_when_its_container_is_to_stop(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    box = instance(health=HealthCheck(probe=CHECK))
    async with lab.agent() as agent:
        await agent.take_view(view(box))
        await phase(agent, 1, Phase.RUNNING)
        [process] = await until(lambda: lab.fakes[0]._containers[ident(1)].execs, deadline=5)
        await agent.take_view(view(wish(box, desired=Desired.PAUSED), revision=2))
        await until(lambda: process.exit is not None, deadline=5)


async def test_health_by_connection_asks_the_container_at_its_own_address(tmp_path: Path) -> None:
    lab, listener = AgentLab(tmp_path), Listener(b"")
    listener.there, lab.dial = False, listener.dial
    check = HealthCheck(probe=TcpProbe(port=5432), interval=0.02, retries=1)
    async with lab.agent() as agent:
        await agent.take_view(view(instance(health=check)))
        status = await health(agent, "unhealthy")
        assert status.health_message == "port 5432 of 10.9.0.2: Connection refused"
        listener.there = True
        await health(agent, "healthy")
        assert set(listener.to) == {("10.9.0.2", 5432)}


@pytest.mark.parametrize(
    ("answer", "verdict", "message"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine", "healthy", ""),
        (b"HTTP/1.0 302 Found\r\nLocation: /\r\n\r\n", "healthy", ""),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\ndatabase is away\r\n", "unhealthy", "database is away"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "unhealthy", "HTTP/1.1 404 Not Found"),
        (b"220 smtp ready\r\n", "unhealthy", "this is no HTTP: 220 smtp ready"),
        (b"HTTP/1.1 9999999\r\n\r\n", "unhealthy", "HTTP/1.1 9999999"),
        (b"\n", "unhealthy", "this is no HTTP:"),
    ],
)
async def test_health_by_request_follows_the_status_of_the_answer(
    tmp_path: Path, answer: bytes, verdict: Health, message: str
) -> None:
    lab, listener = AgentLab(tmp_path), Listener(answer)
    lab.dial = listener.dial
    check = HealthCheck(probe=HttpProbe(port=8080, path="/live?x=1"), interval=0.02, retries=1)
    async with lab.agent() as agent:
        await agent.take_view(view(instance(health=check)))
        status = await health(agent, verdict)
        assert status.health_message == message
        assert listener.asked.startswith(b"GET /live?x=1 HTTP/1.1\r\nHost: localhost:8080\r\n")


@pytest.mark.parametrize(
    "spec", [{"ports": (Publish(target=80),)}, {"expose": ("80", "443")}], ids=["published", "exposed"]
)
async def test_service_without_a_check_is_ready_once_its_port_is_open(
    tmp_path: Path, spec: dict[str, Any]
) -> None:
    lab, listener = AgentLab(tmp_path), Listener(b"")
    listener.there, lab.dial = False, listener.dial
    async with lab.agent() as agent:
        await agent.take_view(view(of_service(instance(**spec)), instance(2, **spec)))
        assert (await phase(agent, 2, Phase.RUNNING)).ready, "one without a service is not waited for"
        assert not (await phase(agent, 1, Phase.RUNNING)).ready
        await until(lambda: len(listener.to) > 2, deadline=5)
        assert status_of(agent).opening and status_of(agent).health == ""
        listener.there = True
        await until(lambda: status_of(agent).ready, deadline=5)
        asked = len(listener.to)
        await asyncio.sleep(0.05)
        assert len(listener.to) == asked, "once"


async def test_service_that_exposes_nothing_is_ready_as_it_runs(tmp_path: Path) -> None:
    lab, listener = AgentLab(tmp_path), Listener(b"")
    lab.dial = listener.dial
    async with lab.agent() as agent:
        await agent.take_view(view(of_service(instance())))
        assert (await phase(agent, 1, Phase.RUNNING)).ready and not listener.to
