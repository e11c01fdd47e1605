"""Names: questions that a resolver answers, and changes among thousands."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from bench.dnsclient import question
from bench.namespaces import ROOT, Program, namespaces
from bench.peers import IMAGE
from bench.stage import Stage
from bench.table import Figure, Samples
from deploy.rig.netns import NetnsRig
from net.kernel.netns import inside

SECONDS = 3
MEMBERS = 5000
MOST = 5.0
"""Milliseconds of an agent's processor that a change may take."""
HOST, PEER = "flnm-host", "flnm-peer"


def own(stage: Stage, runs: int) -> Samples:
    return _queries(stage, runs, 0)


def mixed(stage: Stage, runs: int) -> Samples:
    return _queries(stage, runs, 1)


def _queries(stage: Stage, runs: int, foreign: int) -> Samples:
    """Questions per second of the processor that their server used; the client asks from a container."""
    mine, theirs = list[float](), list[float]()
    with _ours(stage) as ours, _dockers(stage) as docker:
        for turn in range(-1, runs):
            pair = [side.rate(foreign) for side in ((ours, docker) if turn % 2 else (docker, ours))]
            a, b = pair if turn % 2 else reversed(pair)
            if turn >= 0:
                mine.append(a)
                theirs.append(b)
    return Samples(ours=tuple(mine), peer=tuple(theirs))


class _Side:
    """A container that asks, and who answers it."""

    def __init__(self, rig: NetnsRig, container: int, server: str, serving: int) -> None:
        """Pids: the container's as its host knows it, the server's as this machine does."""
        self._rig, self._container, self._server, self._serving = rig, container, server, serving

    def rate(self, foreign: int) -> float:
        client = [sys.executable, f"{ROOT}/bench/dnsclient.py", self._server, "other", str(SECONDS)]
        argv = ["nsenter", "-t", str(self._container), "--net", "--", *client, str(foreign)]
        before = self._worked()
        answered = int(self._rig.exec("n1", argv).stdout)
        return answered / (self._worked() - before)

    def _worked(self) -> float:
        """Seconds, in user and system mode."""
        words = Path(f"/proc/{self._serving}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def _ours(stage: Stage) -> Iterator[_Side]:
    fleet = stage.fleet
    host = fleet.rig.hosts[0].address
    fleet.flota("n1", "network", "create", "-d", "bridge", "benchdns")
    words = ("--network", "benchdns", "--dns", host, "--node", "n1", IMAGE, "sleep", "100000")
    try:
        for name in ("asker", "other"):
            fleet.flota("n1", "run", "-d", "--name", name, *words)
        status = fleet.json("inspect", "asker")[0]["status"]
        with _upstream(fleet.rig, host):
            serving = next(pid for pid in fleet.rig.processes("n1") if b"\0net.resolver\0" in _words(pid))
            yield _Side(fleet.rig, status["pid"], status["endpoints"][0]["gateway"], serving)
    finally:
        fleet.attempt("n1", "rm", "-f", "asker", "other")
        fleet.flota("n1", "network", "rm", "benchdns")


@contextlib.contextmanager
def _dockers(stage: Stage) -> Iterator[_Side]:
    docker = stage.docker
    host = docker.rig.hosts[0].address
    docker.run("n1", "network", "create", "benchdns")
    words = ("--network", "benchdns", "--dns", host, IMAGE, "sleep", "100000")
    try:
        for name in ("asker", "other"):
            docker.run("n1", "run", "-d", "--name", name, *words)
        pid = int(docker.run("n1", "inspect", "-f", "{{.State.Pid}}", "asker").stdout)
        with _upstream(docker.rig, host):
            yield _Side(docker.rig, pid, "127.0.0.11", docker.engine_pid())
    finally:
        docker.run("n1", "rm", "-f", "asker", "other", check=False)
        docker.run("n1", "network", "rm", "benchdns")


@contextlib.contextmanager
def _upstream(rig: NetnsRig, address: str) -> Iterator[None]:
    argv = [*rig.enter("n1"), sys.executable, f"{ROOT}/bench/dnsupstream.py", address]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            if process.stdout is None or process.stdout.readline() != b"up\n":
                raise RuntimeError(f"no name server of the outside at {address}")
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def _words(pid: int) -> bytes:
    """A process's command line; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def change(stage: Stage, runs: int) -> Samples:
    """One member of thousands is ready no more: until the resolver says so, against dnsmasq and its file."""
    folder = Path(tempfile.mkdtemp(prefix="flota-names-", dir="/run"))
    mine, theirs, worked = list[float](), list[float](), list[float]()
    try:
        with (
            namespaces(HOST, PEER),
            _dnsmasq(folder) as peer,
            Program(HOST, "bench.attachhost", str(folder / "host")) as ours,
        ):
            ours.ask("fill 1")
            ours.ask(f"members {MEMBERS}")
            for turn in range(-1, runs):
                seconds, processor = ours.ask("change")
                b = peer.changed(turn + 2)
                if turn >= 0:
                    mine.append(seconds * 1000)
                    theirs.append(b)
                    worked.append(processor * 1000)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    verdict = "within" if median(worked) <= MOST else "beyond"
    note = f"{median(worked):.2g} ms of the agent's processor, {verdict} the {MOST:g} ms that it may take"
    return Samples(ours=tuple(mine), peer=tuple(theirs), note=note)


class _Dnsmasq:
    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self._file, self._process = folder / "hosts", process
        self._socket = inside(f"/run/netns/{PEER}", lambda: socket.socket(type=socket.SOCK_DGRAM))
        self._socket.settimeout(0.2)
        self._socket.connect(("127.0.0.1", 53))

    def changed(self, turn: int) -> float:
        """Milliseconds from the file's writing until a member's new address is the answer."""
        lines = [
            f"10.64.{128 + (n >> 8)}.{n & 255} web{n // 10}.{n % 10}.x web{n // 10}" for n in range(MEMBERS)
        ]
        lines[turn] = f"10.65.0.{turn} web{turn // 10}.{turn % 10}.x"
        text, wanted = "\n".join(lines) + "\n", bytes((10, 65, 0, turn))
        began = time.perf_counter()
        self._file.write_text(text)
        self._process.send_signal(signal.SIGHUP)
        while self.asked(f"web{turn // 10}.{turn % 10}.x")[-4:] != wanted:
            continue
        return (time.perf_counter() - began) * 1000

    def asked(self, name: str) -> bytes:
        """Empty where there is no answer (yet)."""
        with contextlib.suppress(TimeoutError, ConnectionRefusedError):
            self._socket.send(question(7, name))
            return self._socket.recv(4096)
        return b""


@contextlib.contextmanager
def _dnsmasq(folder: Path) -> Iterator[_Dnsmasq]:
    (folder / "hosts").write_text("")
    words = ["--no-resolv", "--no-hosts", f"--addn-hosts={folder / 'hosts'}", "--listen-address=127.0.0.1"]
    words += ["--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file="]
    argv = ["nsenter", f"--net=/run/netns/{PEER}", "dnsmasq", *words]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            served, end = _Dnsmasq(folder, process), time.monotonic() + 10
            while not served.asked("localhost"):
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError("dnsmasq does not answer")
                time.sleep(0.02)
            yield served
        finally:
            process.terminate()


FIGURES = (
    (
        Figure(
            name="names.queries",
            what="a container's name, asked for in its network: answers per second of the server's processor",
            unit="1/s",
            goal=1.0,
            better="more",
            peer="docker's DNS",
            runs=6,
        ),
        own,
    ),
    (
        Figure(
            name="names.mixed",
            what="the same, one of ten names being the outside's",
            unit="1/s",
            goal=1.0,
            better="more",
            peer="docker's DNS",
            runs=6,
        ),
        mixed,
    ),
    (
        Figure(
            name="names.change",
            what=f"one of {MEMBERS:,} members is another, until that is the answer",
            unit="ms",
            goal=0.5,
            better="less",
            peer="dnsmasq, its file anew",
            runs=30,
        ),
        change,
    ),
)
