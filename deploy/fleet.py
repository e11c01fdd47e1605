"""A fleet on a rig: the controller and an agent on n1, agents on the others, driven through the command line.

The demo, the rig tests and the benchmarks all start their fleets here, by the commands that the README shows.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, TypeVar

from deploy.rig.base import Rig
from deploy.rig.netns import NetnsRig
from model.whereabouts import joined

FLOTA = str(Path(sys.executable).with_name("flota"))
PORT = 7420
PURGE = 300.0
"""Seconds: images of many files take their time to delete."""
R = TypeVar("R", bound=Rig)


class CommandLine(Generic[R]):
    """`program` is where a rig's hosts have flota; a command has `patience` seconds unless said otherwise.
    All waiting is for conditions, with deadlines."""

    def __init__(self, rig: R, program: str, *, patience: float = 60.0) -> None:
        self.rig = rig
        self._program = program
        self._patience = patience

    # -- use ----------------------------------------------------------------------------------------
    def flota(self, host: str, *words: str, timeout: float = 0.0, stdin: bytes | None = None) -> str:
        """Run a flota command on a host; its standard output. Raises RuntimeError with what it said."""
        done = self.rig.exec(host, [self._program, *words], timeout=timeout or self._patience, stdin=stdin)
        return done.stdout.decode()

    def attempt(self, host: str, *words: str, timeout: float = 0.0) -> subprocess.CompletedProcess[bytes]:
        """As `flota`, but a failure is a result."""
        return self.rig.exec(host, [self._program, *words], timeout=timeout or self._patience, check=False)

    def json(self, *words: str, host: str = "n1") -> list[dict[str, Any]]:
        """A command's `--format json` lines, decoded."""
        text = self.flota(host, *words, "--format", "json")
        return [json.loads(line) for line in text.splitlines() if line.strip()]

    def wait_ready(self, count: int, deadline: float = 30.0) -> None:
        end = time.monotonic() + deadline
        while True:
            ready = [n for n in self.json("node", "ls") if n["state"] == "ready"]
            if len(ready) >= count:
                return
            if time.monotonic() > end:
                raise RuntimeError(f"{len(ready)} of {count} hosts are ready after {deadline:g} s")
            time.sleep(0.1)

    def load_everywhere(self, name: str, tar: bytes, *changes: str) -> None:
        """Make an image of a root file system tar, on every host."""
        words = [word for change in changes for word in ("--change", change)]
        self.flota("n1", "import", *words, "-", name, stdin=tar)


class Fleet(CommandLine[NetnsRig]):
    """`rig` is up or will be by `start`. `flags` are said to every host that is made or joins."""

    def __init__(self, rig: NetnsRig, *flags: str) -> None:
        super().__init__(rig, FLOTA)
        self._flags = flags

    # -- life ---------------------------------------------------------------------------------------
    def start(self, count: int) -> None:
        """Hosts up, controller and agents running, every host Ready; hosts join side by side."""
        self.rig.up(count)
        self.up("n1")
        _each(self.join, [host.name for host in self.rig.hosts[1:]])
        self.wait_ready(count)

    def up(self, host: str) -> None:
        address = next(h.address for h in self.rig.hosts if h.name == host)
        self.flota(host, "up", "--name", host, "--address", address, *self._cgroup(host), *self._flags)

    def join(self, host: str) -> None:
        token = self.flota("n1", "token", "create", "--quiet").strip()
        controller = next(h.address for h in self.rig.hosts if h.name == "n1")
        words = ("join", token, joined(controller, PORT), "--name", host)
        nat = ("--behind-nat",) if host in self.rig.nat else ()
        self.flota(host, *words, *nat, *self._cgroup(host), *self._flags)

    def stop(self) -> None:
        """Every container and network goes, then the daemons, then the hosts; on all hosts at once."""
        _each(self._purge, [host.name for host in self.rig.hosts])
        self.rig.down()

    def _purge(self, host: str) -> None:
        self.rig.exec(host, [FLOTA, "down", "--purge"], check=False, timeout=PURGE)

    def _cgroup(self, host: str) -> tuple[str, str]:
        return "--cgroup-parent", f"/flota-{self.rig.name}-{host}"

    # -- use ----------------------------------------------------------------------------------------
    def socket(self, host: str = "n1") -> str:
        """Path, on this machine, of the controller's API socket."""
        return str(self.rig.run_folder(host) / "flota.sock")

    def pid(self, host: str, daemon: str) -> int:
        """This machine's pid of a host's `agent` or `controller` daemon."""
        for pid in self.rig.processes(host):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue  # it has just ended
            if words[2:5] == [b"-m", b"cli.main", daemon.encode()]:
                return pid
        raise RuntimeError(f"no {daemon} runs on {host}")


def _each(do: Callable[[str], None], hosts: Sequence[str]) -> None:
    """On all of them at the same time. Raises the first failure."""
    if hosts:
        with ThreadPoolExecutor(len(hosts)) as pool:
            list(pool.map(do, hosts))
