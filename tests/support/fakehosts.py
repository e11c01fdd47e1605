"""Hosts in memory behind the Transport seam, and the fleet that they join: for provisioning without IO.

A fake host answers the very words that provisioning runs, and keeps the state that they would make. Each call
is numbered, so that a test can cut the connection before or after any of them.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from deploy.bundle import Bundle
from deploy.fleetport import Invitation
from deploy.hostfacts import Facts
from deploy.hostlock import changed_by
from deploy.hostprobe import BEGIN, END
from deploy.inventory import Target
from deploy.provision import LAST_WORDS
from deploy.removal import KEEP, VOLUMES
from deploy.software import INSTALL, RECORD
from deploy.steps import FLOTA, FleetView, Node
from deploy.transport import Finished
from model.errors import Unavailable

FLEET, RELEASE = "f" * 32, "1.0-0123456789ab"


class FakeFleet:
    """See `deploy.fleetport.FleetPort`."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.tokens: set[str] = set()
        self.made = 0
        self.replaced: list[str] = []
        """Of each token: the host whose place it is for."""
        self.drained: list[str] = []
        self.services: list[str] = []
        """Containers of services that are on a drained host still; one goes at each look."""
        self.others: tuple[str, ...] = ()
        """Containers of no service."""

    async def view(self) -> FleetView:
        return FleetView(fleet_id=FLEET, nodes=tuple(self.nodes.values()))

    async def invite(self, replaces: str = "") -> Invitation:
        self.made += 1
        self.replaced.append(replaces)
        self.tokens.add(token := f"flota-1-secret-{self.made}")
        return Invitation(token=token, address="192.0.2.1:7420")

    async def remove(self, ref: str) -> None:
        self.nodes = {name: node for name, node in self.nodes.items() if ref not in (node.id, name)}

    async def drain(self, ref: str) -> None:
        self.drained.append(ref)

    async def staying(self, ref: str) -> tuple[str, ...]:
        found = tuple(self.services)
        if self.services and self.services[0] != "stuck":
            self.services.pop(0)
        return found

    async def plain(self, ref: str) -> tuple[str, ...]:
        return self.others


class FakeSource:
    """See `deploy.bundles.BundleSource`."""

    release = RELEASE

    async def bundle(self, facts: Facts, python: str) -> Bundle:
        return Bundle(path=Path("/bundle"), release=RELEASE, sha256="00")

    def installer(self) -> bytes:
        return b"the installer"


@dataclass
class FakeHost:
    """`cut`: called with a call's number and side (before, after); true: the connection breaks there."""

    name: str
    fleet: FakeFleet
    programs: set[str] = field(default_factory=lambda: {"conmon", "ip", "flock"})
    installed: set[str] = field(default_factory=set)
    current: str = ""
    incoming: bool = False
    member: bool = False
    volumes: list[str] = field(default_factory=list)
    keeps: bool = True
    """Its flota knows how to keep volumes."""
    controls: bool = False
    running: set[str] = field(default_factory=set)
    ready: bool = True
    lock: str = "held"
    fails: dict[str, Finished] = field(default_factory=dict)
    """By a word of a command: what it ends with instead."""
    cut: Callable[[int, str], bool] = lambda number, side: False
    calls: list[tuple[str, ...]] = field(default_factory=list)
    closed: int = 0

    @property
    def host(self) -> str:
        return f"root@{self.name}"

    async def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float, root: bool = True
    ) -> Finished:
        words = tuple(changed_by(argv))
        with self._call(words):
            failing = next((done for word, done in self.fails.items() if word in words), None)
            return failing or self._answer(words, stdin)

    async def put(self, source: Path, target: str, mode: int) -> None:
        with self._call(("put", target)):
            self.incoming = True

    @asynccontextmanager
    async def held(self, argv: Sequence[str], *, timeout: float) -> AsyncIterator[str]:
        yield self.lock

    async def close(self) -> None:
        self.closed += 1

    # -- parts --------------------------------------------------------------------------------------
    def _call(self, words: tuple[str, ...]) -> _Call:
        self.calls.append(words)
        return _Call(self, len(self.calls))

    def _answer(self, words: tuple[str, ...], stdin: bytes) -> Finished:
        if words[:2] == ("sh", "-s"):
            return Finished(code=0, out=self._probe().encode())
        if words[1:2] == ("-",):
            return self._installer(words[2])
        if words[0] == FLOTA:
            return self._flota(words, stdin)
        if INSTALL in words:
            packages = set(words[5].split())
            self.installed |= packages
            self.programs |= packages
        if words == ("ls", VOLUMES):
            return Finished(code=0 if self.volumes else 2, out="\n".join(self.volumes).encode())
        if words == ("cat", RECORD):
            return Finished(code=0, out="\n".join(sorted(self.installed - {RELEASE})).encode())
        if words[:2] == ("dpkg", "--remove"):
            self.installed -= set(words)
        if LAST_WORDS in words:
            return Finished(code=0, out=b"the agent: no such thing\n")
        return Finished(code=0)

    def _installer(self, verb: str) -> Finished:
        if verb == "install":
            assert self.incoming, "nothing was put"
            self.incoming, self.installed = False, self.installed | {RELEASE}
        elif verb == "switch":
            assert RELEASE in self.installed
            self.current = RELEASE
        elif verb == "remove":
            assert not self.running, "in use"
            self.current = ""
            self.installed.discard(RELEASE)
        said = {"current": self.current, "present": RELEASE in self.installed}
        return Finished(code=0, out=json.dumps(said).encode())

    def _flota(self, words: tuple[str, ...], stdin: bytes) -> Finished:
        assert self.current, "no flota there"
        if words[1] in ("info", "node", "token"):
            return Finished(code=0, out=self._told(words[1]).encode())
        if words[1] == "join":
            assert not self.member, "it is a member already"
            assert not any("secret" in word for word in words)
            self.fleet.tokens.remove(stdin.decode().strip())
            self.member = True
        if words[1:] == ("down", "--help"):
            return Finished(code=0, out=f"  --purge  All\n  {KEEP if self.keeps else ''}\n".encode())
        if words[1] == "down":
            assert self.keeps or KEEP not in words, "no such option"
            self.volumes = self.volumes if KEEP in words else []
            self.member = False
            self.running.clear()
        if words[1] == "up":
            self.member = self.controls = True
            self.running.add("controller")
        if words[1] in ("join", "agent", "up"):
            self.running.add("agent")
            node = Node(id=self.ident, name=self.name, state="ready" if self.ready else "joining")
            self.fleet.nodes[self.name] = node
        return Finished(code=0)

    def _told(self, what: str) -> str:
        """What the controller's own command line says."""
        assert "controller" in self.running, "no controller runs there"
        if what == "info":
            return json.dumps({"fleet_id": FLEET})
        if what == "token":
            self.fleet.made += 1
            self.fleet.tokens.add(token := f"flota-1-secret-{self.fleet.made}")
            return f"flota join {token} 192.0.2.1:7420\n"
        nodes = self.fleet.nodes.values()
        return "\n".join(
            json.dumps({"host": {"id": one.id, "spec": {"name": one.name}, "state": one.state}})
            for one in nodes
        )

    @property
    def ident(self) -> str:
        return self.name.encode().hex().ljust(64, "0")

    def _probe(self) -> str:
        lines = [
            BEGIN, "os.ID debian", "os.VERSION_ID 12", f"hostname {self.name}", "kernel 6.1",
            "machine x86_64",
            "libc gnu", "cgroup 2", "controllers cpu memory pids", "python /usr/bin/python3 3.11.2",
            "free.opt 9999999", "free.lib 9999999", "init systemd", "file /usr/lib/*/libnftables.so.1",
            "file /usr/share/containers/seccomp.json", "program tini-static", "feature wireguard yes",
            *(f"program {name}" for name in sorted(self.programs)),
            *(f"running {name}" for name in sorted(self.running)),
        ]  # fmt: skip
        if self.current:
            lines += ["opt ours", f"release {self.current}"]
        if self.controls:
            lines.append(f"controls {FLEET}")
        if self.member:
            lines.append(f"member {FLEET} {self.ident} {self.name}")
        return "\n".join((*lines, END, ""))


class _Call:
    def __init__(self, host: FakeHost, number: int) -> None:
        self._host = host
        self._number = number

    def __enter__(self) -> None:
        if self._host.cut(self._number, "before"):
            raise Unavailable(f"{self._host.host}: the connection broke")

    def __exit__(self, *_: object) -> None:
        if self._host.cut(self._number, "after"):
            raise Unavailable(f"{self._host.host}: the connection broke")


class FakeConnections:
    """Opens transports to fake hosts by their names; those that are not there can't be reached."""

    def __init__(self, *hosts: FakeHost) -> None:
        self._hosts = {host.name: host for host in hosts}
        self.open = self.most = 0

    async def __call__(self, target: Target) -> FakeHost:
        if target.host not in self._hosts:
            raise Unavailable(f"{target}: nobody answers there")
        return self._hosts[target.host]
