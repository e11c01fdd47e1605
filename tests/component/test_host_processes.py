"""The processes that outlive the agent, as it and their supervisor keep them: started, adopted, replaced,
restarted without an agent, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import pytest

from agent import hostprocesses, naming
from agent.hostprocesses import SupervisedProcesses
from agent.naming import NameService
from aio import subprocess
from aio.inotify import DirectoryBells
from aio.processes import process_started
from aio.supervisor import Supervisor
from net.resolver.main import main
from net.resolver.state import Client, ResolverState, Zone
from net.supervise import drop
from net.supervise import main as supervisor_main
from net.supervise.files import PID, SERVED, STATE, Claim, claim_of, full_version, prepare, write_state
from net.supervise.keep import Keeper, stop
from net.supervise.state import FOLDER, Child, Children, decode, encode
from tests.support.ports import free_port
from tests.support.waiting import until

HERE = "127.0.0.75"


def state(**names: tuple[str, ...]) -> ResolverState:
    zone = Zone(network="n", listen=(HERE,), names=names)
    return ResolverState(zones={"n": zone}, clients={"127.0.0.1": Client(zones=("n",), outside=False)})


class Host:
    """A run folder, agents that come and go, and what must be stopped at the end."""

    def __init__(self, folder: Path) -> None:
        self.run, self.logs, self.port = folder / "run", folder / "logs", free_port()
        self.run.mkdir(parents=True)
        self.names_folder, self.own_folder = (str(self.run / name) for name in (naming.FOLDER, FOLDER))
        self.processes: SupervisedProcesses | None = None
        self.unit = ""

    @contextlib.asynccontextmanager
    async def agent(self) -> AsyncIterator[NameService]:
        """Leaving it ends the agent, nothing else."""
        service = NameService(self.run)
        options = ("--port", str(self.port))
        self.processes = SupervisedProcesses(self.run, self.logs, unit=self.unit, options=options)
        async with Supervisor("agent") as supervisor:
            supervisor.start("verdicts", service.run)
            supervisor.start("processes", self.processes.run)
            yield service

    @property
    def pid(self) -> int:
        return claim_of(self.names_folder).pid

    @property
    def supervisor(self) -> int:
        return claim_of(self.own_folder).pid

    async def other(self, first: int) -> int:
        """The resolver's pid, once it is another."""
        await until(lambda: self.pid not in (0, first), deadline=10, what="another resolver")
        return self.pid

    def ask(self, name: str, timeout: float = 5.0) -> list[str]:
        reply = dns.query.udp(dns.message.make_query(name, "A"), HERE, port=self.port, timeout=timeout)
        return sorted(str(item) for rrset in reply.answer for item in rrset)

    def answers(self, name: str) -> bool:
        try:
            return bool(self.ask(name, timeout=0.05))
        except (OSError, dns.exception.Timeout):
            return False


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    made = Host(tmp_path)
    yield made
    await hostprocesses.stop(made.run)


async def test_resolver_serves_and_outlives_its_agent_and_goes_on_under_the_next(host: Host) -> None:
    async with host.agent() as names:
        names.update(state(web=("10.1.0.1",)))
        assert await names.served(10) and host.ask("web") == ["10.1.0.1"] and not names.troubles
        names.update(state(web=("10.1.0.2",)))
        assert await names.served(5) and host.ask("web") == ["10.1.0.2"]
        first, supervisor = host.pid, host.supervisor
    assert host.ask("web") == ["10.1.0.2"] and os.getsid(first) == first != os.getsid(supervisor)
    async with host.agent() as names:
        before = os.stat(os.path.join(host.names_folder, STATE)).st_ino
        names.update(state(web=("10.1.0.2",)))
        assert await names.served(5)
        assert os.stat(os.path.join(host.names_folder, STATE)).st_ino == before, (
            "nothing changed, nothing is written"
        )
        names.update(state(new=("10.1.0.3",)))
        assert await names.served(5) and host.ask("new") == ["10.1.0.3"]
        assert (host.pid, host.supervisor) == (first, supervisor)


async def test_resolver_that_dies_while_there_is_no_agent_is_back_within_a_second(host: Host) -> None:
    async with host.agent() as names:
        names.update(state(web=("10.1.0.1",)))
        assert await names.served(10)
    first = host.pid
    loop = asyncio.get_running_loop()
    os.kill(first, signal.SIGKILL)
    began = loop.time()
    await until(lambda: host.pid != first and host.answers("web"), deadline=10, what="names again")
    assert loop.time() - began < 1.0
    assert process_started(first) is None, "the dead one was reaped"


async def test_death_of_the_resolver_is_told_and_forgotten_when_it_serves_again(host: Host) -> None:
    async with host.agent() as names:
        names.update(state(web=("10.1.0.1",)))
        assert await names.served(10) and host.processes is not None
        processes = host.processes
        told: list[str] = []
        processes.changed = lambda: told.extend(processes.troubles)
        os.kill(host.pid, signal.SIGKILL)
        await until(lambda: any("ended" in word for word in told), deadline=5, what="a word")
        assert await names.served(5) and host.ask("web") == ["10.1.0.1"]
        await until(lambda: not processes.troubles, deadline=10, what="no trouble any more")


async def test_supervisor_that_died_is_started_again_and_its_processes_go_on(host: Host) -> None:
    async with host.agent() as names:
        names.update(state(web=("10.1.0.1",)))
        assert await names.served(10)
        first, supervisor = host.pid, host.supervisor
        os.kill(supervisor, signal.SIGKILL)
        await until(lambda: host.supervisor not in (0, supervisor), deadline=10, what="another supervisor")
        assert host.pid == first and host.ask("web") == ["10.1.0.1"]
        os.kill(first, signal.SIGKILL)
        await host.other(first)


async def test_supervisor_that_a_unit_keeps_is_waited_for_and_never_started(host: Host) -> None:
    """What systemd does is done here by hand."""
    host.unit = "flota-processes.service"
    words = (sys.executable, "-P", "-m", "net.supervise", host.own_folder)
    async with host.agent() as names:
        assert host.processes is not None
        processes = host.processes
        names.update(state(web=("10.1.0.1",)))
        assert not await names.served(0.3) and host.supervisor == 0
        first = await asyncio.create_subprocess_exec(*words)
        assert await names.served(10) and host.ask("web") == ["10.1.0.1"]
        resolver = host.pid
        first.kill()
        await first.wait()
        await until(lambda: any("systemctl status" in word for word in processes.troubles), deadline=10)
        claim = claim_of(host.own_folder)
        assert claim.pid == first.pid, "nobody else started one"
        second = await asyncio.create_subprocess_exec(*words)
        await until(lambda: not processes.troubles, deadline=20, what="no trouble any more")
        claim = claim_of(host.own_folder)
        assert claim.pid == second.pid and host.pid == resolver
    async with host.agent():
        old = Claim(pid=second.pid, started=claim.started, version="0@00000000")
        (host.run / FOLDER / PID).write_bytes(old.words())
    async with host.agent():
        await until(lambda: process_started(second.pid) is None, deadline=10, what="the end of the old one")
    await second.wait()


async def test_resolver_of_another_version_is_replaced(host: Host) -> None:
    async with host.agent() as names:
        names.update(state(web=("10.1.0.1",)))
        assert await names.served(10)
        first = host.pid
    claim = claim_of(host.names_folder)
    old = Claim(pid=claim.pid, started=claim.started, version="0@00000000")
    (host.run / naming.FOLDER / PID).write_bytes(old.words())
    os.kill(host.supervisor, signal.SIGTERM)
    async with host.agent() as names:
        names.update(state(web=("10.1.0.1",)))
        await host.other(first)
        assert await names.served(10) and host.ask("web") == ["10.1.0.1"]
    await until(lambda: process_started(first) is None, deadline=5, what="the end of the first")


async def test_process_that_is_not_wanted_any_more_is_ended(host: Host) -> None:
    async with host.agent() as names:
        names.update(state(web=("10.1.0.1",)))
        assert await names.served(10)
    first = host.pid
    write_state(host.own_folder, encode(Children()), 0)
    await until(lambda: process_started(first) is None, deadline=10, what="no resolver")


async def test_stop_ends_all_and_is_idempotent(host: Host) -> None:
    async with host.agent() as names:
        names.update(state(web=("10.1.0.1",)))
        assert await names.served(10)
    pids = host.pid, host.supervisor
    await hostprocesses.stop(host.run)
    assert [process_started(pid) for pid in pids] == [None, None]
    await hostprocesses.stop(host.run)


async def test_pid_of_a_stranger_is_left_alone(host: Host) -> None:
    stranger = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        os.makedirs(host.names_folder)
        claim = Claim(pid=stranger.pid, started=1, version="1")
        (host.run / naming.FOLDER / PID).write_bytes(claim.words())
        assert not await stop(host.names_folder)
        assert process_started(stranger.pid) is not None
    finally:
        stranger.kill()
        await stranger.wait()


async def test_second_process_of_a_folder_ends_at_once(host: Host) -> None:
    async with host.agent() as names:
        names.update(state(web=("10.1.0.1",)))
        assert await names.served(10)
        for module, folder in (("net.resolver", host.names_folder), ("net.supervise", host.own_folder)):
            done = await subprocess.run([sys.executable, "-m", module, folder], deadline=10)
            assert done.code == 1 and b"already" in done.stderr
        assert await names.served(5) and host.ask("web") == ["10.1.0.1"]


async def test_state_file_that_was_damaged_is_told(host: Host) -> None:
    async with host.agent() as names:
        names.update(state(web=("10.1.0.1",)))
        assert await names.served(10)
        write_state(host.names_folder, b"{", drop.RESOLVER)
        await until(lambda: names.troubles, deadline=5)
        assert "refused" in names.troubles[0] and host.ask("web") == ["10.1.0.1"]
        names.update(state(web=("10.1.0.2",)))
        assert await names.served(5) and not names.troubles


async def test_processes_are_small_and_hold_next_to_no_rights(host: Host) -> None:
    async with host.agent() as names:
        names.update(state(web=("10.1.0.1",)))
        assert await names.served(10)
        for pid, size in ((host.pid, 40_000), (host.supervisor, 30_000)):
            with open(f"/proc/{pid}/status") as file:
                status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
            with open(f"/proc/{pid}/maps") as file:
                mapped = file.read()
            assert int(status["VmRSS"].split()[0]) < size
            assert "aiohttp" not in mapped and "nftables" not in mapped
            if os.geteuid() == 0:
                assert status["NoNewPrivs"] == "1"
                if pid == host.pid:
                    assert status["Seccomp"] == "2", "a filter"
                    assert status["Uid"].split() == [str(drop.RESOLVER)] * 4
                    assert status["Groups"].strip() == ""
                    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 1 << 10
                else:
                    needed = sum(1 << cap for cap in supervisor_main.NEEDED)
                    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16)
                    assert int(status["CapEff"], 16) & ~needed == 0


@pytest.mark.parametrize("module", ["net.resolver.main", "net.supervise.main"])
async def test_processes_import_neither_netlink_nor_http(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = await subprocess.run([sys.executable, "-c", code], deadline=20)
    loaded = set(done.check().stdout.decode().split())
    foreign = {"pyroute2", "aiohttp", "cryptography", "click", "agent", "api", "image", "controller"}
    assert not loaded & foreign


def test_wrong_words_and_places_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2 and main(["x", "--port", "y"]) == 2
    assert supervisor_main.main([]) == 2 and supervisor_main.main(["x", "y"]) == 2
    assert main([str(tmp_path / "nowhere")]) == supervisor_main.main([str(tmp_path / "nowhere")]) == 1
    assert capsys.readouterr().err.count("cannot start") == 2


async def test_verdict_of_a_dead_resolver_is_not_believed(host: Host) -> None:
    async with host.agent() as names:
        names.update(state(web=("10.1.0.1",)))
        assert await names.served(10)
        verdict = (host.run / naming.FOLDER / SERVED).read_bytes()
    await hostprocesses.stop(host.run)
    (host.run / naming.FOLDER / SERVED).write_bytes(verdict)
    async with host.agent() as names:
        names.update(state(web=("10.1.0.1",)))
        assert not await names.served(0.001)
        assert await names.served(10) and host.ask("web") == ["10.1.0.1"]


async def test_process_that_takes_no_state_hangs_and_is_replaced(tmp_path: Path) -> None:
    """A program that claims its folder and says nothing: what a stopped resolver looks like."""
    folder = str(tmp_path / "place")
    code = "import sys, signal, net.supervise.place as p; x = p.Place(sys.argv[1], '1'); signal.pause()"
    argv = (sys.executable, "-c", code, folder)
    prepare(folder, 0)
    write_state(folder, b"{}", 0)
    child = Child(argv=argv, folder=folder, version=full_version("1"), log=str(tmp_path / "log"))
    bells = DirectoryBells()
    try:
        async with Supervisor("test") as supervisor:
            supervisor.start("keeper", Keeper("mute", child, bells, check=2.0).run)
            first = await until(lambda: claim_of(folder).pid, deadline=30, what="the first")
            await until(lambda: claim_of(folder).pid not in (0, first), deadline=30, what="another one")
    finally:
        bells.close()
        await stop(folder)


async def test_state_that_could_not_be_written_is_written_later(host: Host) -> None:
    async with host.agent() as names:
        names.update(state(web=("10.1.0.1",)))
        assert await names.served(10)
        in_the_way = host.run / naming.FOLDER / f"{STATE}.new"
        in_the_way.mkdir()
        (host.run / naming.FOLDER / STATE).unlink()
        names.update(state(web=("10.1.0.2",)))
        assert "cannot be written" in names.troubles[0] and host.ask("web") == ["10.1.0.1"]
        in_the_way.rmdir()
        assert await names.served(10) and host.ask("web") == ["10.1.0.2"]
        assert not names.troubles


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
        assert await names.served(5) and path.read_bytes().startswith(said) and host.ask("web") == []


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


def test_state_of_the_supervisor_is_read_back_as_it_was_written() -> None:
    child = Child(argv=("/bin/true",), folder="/run/x", version="1", log="/var/log/x")
    assert decode(encode(Children(children={"one": child}))).children == {"one": child}
