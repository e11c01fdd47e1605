"""The processes that outlive the agent, when a service manager ends the agent by killing its whole cgroup."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import pytest

from agent import hostprocesses, naming
from agent.naming import NameService
from model.errors import CommandFailed
from net.resolver.state import Client, ResolverState, Zone
from net.supervise import cgroup
from net.supervise.files import claim_of
from net.supervise.state import FOLDER
from tests.support.ports import free_port
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kernel

HERE = "127.0.0.76"
AGENT = """
import asyncio, sys
from pathlib import Path
from agent.hostprocesses import SupervisedProcesses
from net.supervise import cgroup
run, own, group, port = sys.argv[1:]
assert not cgroup.join(own)
asyncio.run(SupervisedProcesses(Path(run), Path(run), own_cgroup=group, options=("--port", port)).run())
"""
"""An agent as far as its processes go, in a cgroup as a service manager would give it."""


class Service:
    def __init__(self, folder: Path) -> None:
        self.run, self.port = folder, free_port()
        self.own, self.group = (f"/flota-test{os.getpid()}{end}" for end in ("", "-processes"))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = (str(self.run), self.own, self.group, str(self.port))
        self.process = subprocess.Popen([sys.executable, "-c", AGENT, *words])

    def kill_cgroup(self) -> None:
        """As systemd's KillMode=control-group with SIGKILL, in every hierarchy."""
        for path in Path(cgroup.ROOT).glob(f"*{self.own}/cgroup.procs"):
            for pid in path.read_text().split():
                with contextlib.suppress(ProcessLookupError):  # by its cgroup of another hierarchy
                    os.kill(int(pid), signal.SIGKILL)
        assert self.process is not None
        self.process.wait(10)

    def pid(self, folder: str) -> int:
        return claim_of(str(self.run / folder)).pid

    def cgroups(self, pid: int) -> set[str]:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        return {line.split(":", 2)[2] for line in lines}

    def answers(self, within: float = 0.05) -> bool:
        try:
            query = dns.message.make_query("web", "A")
            return bool(dns.query.udp(query, HERE, port=self.port, timeout=within).answer)
        except (OSError, dns.exception.Timeout):
            return False


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path)
    yield made
    if made.process is not None:
        made.process.kill()
        made.process.wait(10)
    asyncio.run(hostprocesses.stop(made.run))
    wait_until(lambda: _removed(made.own), deadline=10, what="nobody in the agent's cgroup")
    assert not list(Path(cgroup.ROOT).glob(f"*{made.own}*"))


def _removed(path: str) -> bool:
    """Whoever was killed is in it for a moment longer."""
    with contextlib.suppress(CommandFailed):
        cgroup.remove(path)
        return True
    return False


def test_killing_the_agents_cgroup_leaves_names_and_their_supervisor(service: Service) -> None:
    zone = Zone(network="n", listen=(HERE,), names={"web": ("10.1.0.1",)})
    clients = {"127.0.0.1": Client(zones=("n",), outside=False)}
    NameService(service.run).update(ResolverState(zones={"n": zone}, clients=clients))
    service.start()
    wait_until(service.answers, deadline=10, what="names")
    resolver, supervisor = service.pid(naming.FOLDER), service.pid(FOLDER)
    for pid in (resolver, supervisor):
        assert service.cgroups(pid) == {service.group}
    service.kill_cgroup()
    assert service.answers(5.0)
    assert (service.pid(naming.FOLDER), service.pid(FOLDER)) == (resolver, supervisor)
    os.kill(resolver, signal.SIGKILL)
    began = time.monotonic()
    wait_until(lambda: service.pid(naming.FOLDER) != resolver and service.answers(), deadline=10, what="it")
    assert time.monotonic() - began < 1.0
    assert service.cgroups(service.pid(naming.FOLDER)) == {service.group}
