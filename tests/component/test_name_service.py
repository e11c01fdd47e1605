"""The resolver's process as the agent keeps it: started, adopted, replaced, restarted, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import dns.message
import dns.query
import pytest

from agent import naming
from agent.namefile import write_state
from agent.naming import NameService, read_pid
from agent.runtime.procs import process_started
from aio import subprocess
from aio.supervisor import Supervisor
from net.resolver.drop import USER
from net.resolver.main import main
from net.resolver.serve import PID, SERVED, STATE
from net.resolver.state import Client, ResolverState, Zone
from tests.support.nameserver import free_port
from tests.support.waiting import until

HERE = "127.0.0.75"


def state(**names: tuple[str, ...]) -> ResolverState:
    zone = Zone(network="n", listen=(HERE,), names=names)
    return ResolverState(zones={"n": zone}, clients={"127.0.0.1": Client(zones=("n",), outside=False)})


class Host:
    """A run folder, agents that come and go, and what must be stopped at the end."""

    def __init__(self, folder: Path) -> None:
        self.run, self.log, self.port = folder / "run", folder / "resolver.log", free_port()
        (self.run / naming.FOLDER).mkdir(parents=True)

    @contextlib.asynccontextmanager
    async def agent(self) -> AsyncIterator[NameService]:
        """Leaving it ends the agent, not the resolver."""
        service = NameService(self.run, self.log, options=("--port", str(self.port)))
        async with Supervisor("agent") as supervisor:
            supervisor.start("names", service.run)
            yield service

    @property
    def pid(self) -> int:
        return read_pid(self.run / naming.FOLDER)[0]

    def ask(self, name: str) -> list[str]:
        reply = dns.query.udp(dns.message.make_query(name, "A"), HERE, port=self.port, timeout=5)
        return sorted(str(item) for rrset in reply.answer for item in rrset)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    made = Host(tmp_path)
    yield made
    await naming.stop(made.run)


async def test_resolver_serves_and_outlives_its_agent_and_is_adopted(host: Host) -> None:
    async with host.agent() as names:
        names.update(state(web=("10.1.0.1",)))
        assert await names.served(10) and host.ask("web") == ["10.1.0.1"] and not names.troubles
        names.update(state(web=("10.1.0.2",)))
        assert await names.served(5) and host.ask("web") == ["10.1.0.2"]
        first = host.pid
    assert host.ask("web") == ["10.1.0.2"] and os.getsid(first) == first
    async with host.agent() as names:
        before = os.stat(host.run / naming.FOLDER / STATE).st_ino
        await until(lambda: names._pid == first, deadline=5, what="adoption")
        names.update(state(web=("10.1.0.2",)))
        assert os.stat(host.run / naming.FOLDER / STATE).st_ino == before, (
            "nothing changed, nothing is written"
        )
        names.update(state(new=("10.1.0.3",)))
        assert await names.served(5) and host.ask("new") == ["10.1.0.3"]
        assert host.pid == first


async def test_resolver_that_died_is_started_again_with_the_last_state(host: Host) -> None:
    async with host.agent() as names:
        told: list[tuple[str, ...]] = []
        names.changed = lambda: told.append(names.troubles)
        names.update(state(web=("10.1.0.1",)))
        assert await names.served(10)
        first = host.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: host.pid not in (0, first), deadline=10, what="a new resolver")
        assert await names.served(10) and host.ask("web") == ["10.1.0.1"]
        assert process_started(first) is None, "the dead one was reaped"
        assert any("ended" in word for words in told for word in words) and told[-1] == ()


async def test_resolver_of_another_version_is_replaced(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    async with host.agent() as names:
        names.update(state(web=("10.1.0.1",)))
        assert await names.served(10)
        first = host.pid
    monkeypatch.setattr(naming, "VERSION", naming.VERSION + 1)
    async with host.agent() as names:
        await until(lambda: host.pid not in (0, first), deadline=10, what="another resolver")
        assert await names.served(10) and host.ask("web") == ["10.1.0.1"]
    assert process_started(first) is None


async def test_stop_ends_it_and_is_idempotent(host: Host) -> None:
    async with host.agent() as names:
        names.update(state(web=("10.1.0.1",)))
        assert await names.served(10)
    pid = host.pid
    assert await naming.stop(host.run) and process_started(pid) is None
    assert not await naming.stop(host.run)


async def test_pid_of_a_stranger_is_left_alone(host: Host) -> None:
    stranger = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        (host.run / naming.FOLDER / PID).write_text(f"{stranger.pid} 1 1\n")
        assert not await naming.stop(host.run)
        assert process_started(stranger.pid) is not None
    finally:
        stranger.kill()
        await stranger.wait()


async def test_second_resolver_of_a_folder_ends_at_once(host: Host) -> None:
    async with host.agent() as names:
        names.update(state(web=("10.1.0.1",)))
        assert await names.served(10)
        done = await subprocess.run(
            [sys.executable, "-m", "net.resolver", str(host.run / naming.FOLDER)], deadline=10
        )
        assert done.code == 1 and b"already" in done.stderr
        assert await names.served(1) and host.ask("web") == ["10.1.0.1"]


async def test_state_file_that_was_damaged_is_told(host: Host) -> None:
    async with host.agent() as names:
        names.update(state(web=("10.1.0.1",)))
        assert await names.served(10)
        write_state(host.run / naming.FOLDER, b"{")
        await until(lambda: names.troubles, deadline=5)
        assert "refused" in names.troubles[0] and host.ask("web") == ["10.1.0.1"]
        names.update(state(web=("10.1.0.2",)))
        assert await names.served(5) and not names.troubles


async def test_resolver_is_small_and_holds_next_to_no_rights(host: Host) -> None:
    async with host.agent() as names:
        names.update(state(web=("10.1.0.1",)))
        assert await names.served(10)
        with open(f"/proc/{host.pid}/status") as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        with open(f"/proc/{host.pid}/maps") as file:
            mapped = file.read()
        assert int(status["VmRSS"].split()[0]) < 40_000
        if os.geteuid() == 0:
            assert status["Uid"].split() == [str(USER)] * 4 and status["Groups"].strip() == ""
            assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 1 << 10
            assert status["NoNewPrivs"] == "1"
        assert "aiohttp" not in mapped and "nftables" not in mapped


async def test_resolver_imports_neither_netlink_nor_http() -> None:
    code = "import sys, net.resolver.main; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = await subprocess.run([sys.executable, "-c", code], deadline=20)
    loaded = set(done.check().stdout.decode().split())
    assert not loaded & {
        "pyroute2",
        "aiohttp",
        "cryptography",
        "click",
        "agent",
        "api",
        "image",
        "controller",
    }


def test_wrong_words_and_places_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2 and main(["x", "--port", "y"]) == 2
    assert main([str(tmp_path / "nowhere")]) == 1
    assert "cannot start" in capsys.readouterr().err


async def test_verdict_of_a_dead_resolver_is_not_believed(host: Host) -> None:
    async with host.agent() as names:
        names.update(state(web=("10.1.0.1",)))
        assert await names.served(10)
        verdict = (host.run / naming.FOLDER / SERVED).read_bytes()
    await naming.stop(host.run)
    (host.run / naming.FOLDER / SERVED).write_bytes(verdict)
    async with host.agent() as names:
        names.update(state(web=("10.1.0.1",)))
        assert not await names.served(0.001)
        assert await names.served(10) and host.ask("web") == ["10.1.0.1"]


async def test_resolver_that_hangs_is_replaced(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    async with host.agent() as names:
        names.update(state(web=("10.1.0.1",)))
        assert await names.served(10)
        first = host.pid
    monkeypatch.setattr(naming, "CHECK", 0.1)
    async with host.agent() as names:
        os.kill(first, signal.SIGSTOP)
        names.update(state(web=("10.1.0.2",)))
        await until(lambda: host.pid not in (0, first), deadline=10, what="another resolver")
        assert await names.served(10) and host.ask("web") == ["10.1.0.2"]
        names.update(state(web=("10.1.0.3",)))
        assert await names.served(10) and host.pid != first


async def test_state_that_could_not_be_written_is_written_later(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(naming, "CHECK", 0.1)
    folder = host.run / naming.FOLDER
    async with host.agent() as names:
        names.update(state(web=("10.1.0.1",)))
        assert await names.served(10)
        (folder / f"{STATE}.new").mkdir()
        (folder / STATE).unlink()
        names.update(state(web=("10.1.0.2",)))
        assert "Is a directory" in names.troubles[0] and host.ask("web") == ["10.1.0.1"]
        assert not await names.served(0.01)
        (folder / f"{STATE}.new").rmdir()
        assert await names.served(10) and host.ask("web") == ["10.1.0.2"]
        await until(lambda: not names.troubles, deadline=5)


async def test_change_is_appended_and_read_by_the_resolver_and_the_next_agent(host: Host) -> None:
    path = host.run / naming.FOLDER / STATE
    async with host.agent() as names:
        names.update(state(web=("10.1.0.1",), db=("10.1.0.3",)))
        assert await names.served(10)
        first = path.read_bytes()
        names.update(state(web=("10.1.0.2",), new=("10.1.0.4",)))
        assert await names.served(5) and path.read_bytes().startswith(first)
        assert host.ask("web") == ["10.1.0.2"] and host.ask("new") == ["10.1.0.4"] and host.ask("db") == []
        said = path.read_bytes()
    async with host.agent() as names:
        names.update(state(web=("10.1.0.2",), new=("10.1.0.4",)))
        assert await names.served(5) and path.read_bytes() == said, "it says so already"
        names.update(state())
        assert await names.served(5) and host.ask("web") == []


async def test_change_that_was_cut_short_or_damaged_is_overcome(host: Host) -> None:
    path = host.run / naming.FOLDER / STATE
    async with host.agent() as names:
        names.update(state(web=("10.1.0.1",)))
        assert await names.served(10)
        with open(path, "ab") as file:
            file.write(b'{"zones": {"n": {"netw')
        names.update(state(web=("10.1.0.2",)))
        assert await names.served(5) and host.ask("web") == ["10.1.0.2"]
        with open(path, "ab") as file:
            file.write(b"nonsense\n")
        await until(lambda: names.troubles, deadline=5)
        assert "refused" in names.troubles[0] and host.ask("web") == ["10.1.0.2"]
        names.update(state(web=("10.1.0.3",)))
        assert await names.served(5) and host.ask("web") == ["10.1.0.3"] and not names.troubles
