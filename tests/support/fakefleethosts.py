"""Hosts with releases and daemons, as `deploy.upgrade` reaches them: a transport and a fleet in memory.

A daemon runs the release that it was pinned to when it was started; some releases don't start, some start
and never come back to the fleet.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy import hostdaemons, hostprobe
from deploy.bundle import Bundle
from deploy.hostfacts import Facts
from deploy.hostlock import changed_by
from deploy.inventory import Target
from deploy.releases import Aim
from deploy.roster import KnownHost
from deploy.transport import Finished, Transport
from deploy.upgrade import FleetNow, NodeNow
from model.errors import Unavailable

OLD, NEW, OLDER = "1-old", "2-new", "0-older"


@dataclass
class Machine:
    name: str
    controller: bool = False
    current: str = OLD
    previous: str = OLDER
    pins: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Daemon → (release that it is started from, the one before); one that is missing: current, previous."""
    aim: dict[str, object] | None = None
    releases: list[str] = field(default_factory=lambda: [OLDER, OLD])
    agent: str = OLD
    """Release that runs; empty: none does."""
    control: str = ""
    store: str = "of old"
    copy: tuple[str, str] | None = None
    """(For the sake of which release, the store)."""
    taken: bool = False
    """The controller took commands while it was on trial."""
    pids: dict[str, int] = field(default_factory=dict)
    unreachable: bool = False

    def pin(self, daemon: str) -> tuple[str, str]:
        return self.pins.get(daemon, (self.current, self.previous))

    def reboot(self) -> None:
        """Its daemons start from what they are pinned to."""
        self.agent = self.pin("agent")[0]
        self.control = self.pin("controller")[0] if self.controller else ""


class Place:
    """The hosts h1 … hN; h1 has the controller."""

    def __init__(self, count: int = 3) -> None:
        self.machines = {f"h{n}": Machine(f"h{n}", controller=n == 1) for n in range(1, count + 1)}
        self.machines["h1"].control = OLD
        for machine in self.machines.values():
            machine.pids = {f"{machine.name}-web": 100 + len(machine.name)}
        self.does_not_start: set[tuple[str, str]] = set()
        """(Daemon, release)."""
        self.never_ready: set[tuple[str, str]] = set()
        self.restarts_containers = False
        self.excused: dict[str, float] = {}
        """Host → seconds for which its silence was announced last."""
        self.acts: list[tuple[str, ...]] = []
        self.cut_after = -1
        """So many acts from now on the line is cut; -1: never."""
        self.before_act: Callable[[tuple[str, ...]], None] = lambda _: None
        self.seen: Callable[[FleetNow], FleetNow] = lambda now: now
        """What the fleet says of itself → what we get to hear of it."""

    def known(self, *names: str) -> list[KnownHost]:
        return [
            KnownHost(name=name, host_id=name, target=Target(host=name)) for name in names or self.machines
        ]

    async def connect(self, target: Target) -> Transport:
        machine = self.machines[target.host]
        if machine.unreachable:
            raise Unavailable(f"{target.host}: no route")
        return FakeTransport(self, machine)

    def act(self, *words: str) -> None:
        self.before_act(words)
        if self.cut_after == 0:
            raise Unavailable("the line was cut")
        self.cut_after -= 1
        self.acts.append(words)

    def moves(self) -> list[tuple[str, ...]]:
        return [words for words in self.acts if words[1] in ("agent", "controller")]

    def report(self, host: str, state: str, text: str) -> None:
        assert host and state and text

    # -- the fleet ---------------------------------------------------------------------------------
    async def look(self) -> FleetNow:
        head = self.machines["h1"]
        if not head.control or ("controller", head.control) in self.never_ready:
            raise Unavailable("nobody answers")
        nodes = {name: self._node(m) for name, m in self.machines.items()}
        return self.seen(FleetNow(controller=head.control, nodes=nodes))

    def cut_at(self, *words: str) -> None:
        """The line is cut as soon as this is to be done."""

        def cut(act: tuple[str, ...]) -> None:
            if act == words:
                self.cut_after = 0

        self.before_act = cut

    def mend(self) -> None:
        self.before_act, self.cut_after = lambda _: None, -1

    def _node(self, machine: Machine) -> NodeNow:
        away = not machine.agent or ("agent", machine.agent) in self.never_ready
        return NodeNow(state="lost" if away else "ready", release=machine.agent)

    async def expect_away(self, name: str, seconds: float) -> None:
        await self.look()
        self.acts.append((name, "away"))
        self.excused[name] = seconds

    async def processes(self, name: str) -> Mapping[str, int]:
        await self.look()
        return dict(self.machines[name].pids)


class FakeTransport:
    def __init__(self, place: Place, machine: Machine) -> None:
        self._place = place
        self._machine = machine

    @property
    def host(self) -> str:
        return f"root@{self._machine.name}"

    async def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float, root: bool = True
    ) -> Finished:
        machine = self._machine
        if list(argv) == ["sh", "-s"]:
            return Finished(code=0, out=self._facts())
        argv = changed_by(argv)
        if argv[1] == "-":
            return self._installer(list(argv[2:]))
        words = tuple(argv)
        if words == hostdaemons.in_place():
            self._place.act(machine.name, "in-place", machine.pin("controller")[0])
            return Finished(code=0)
        if words[:3] == hostdaemons.begin(Aim(release=""))[:3]:
            self._place.act(machine.name, "begin")
            machine.aim = json.loads(words[-1])
            return Finished(code=0)
        if words == hostdaemons.end():
            self._place.act(machine.name, "end")
            machine.aim = None
            return Finished(code=0)
        for left in (OLD, NEW):
            if words == hostdaemons.put_back(left):
                return self._put_back(left)
        for daemon in ("agent", "controller"):
            for release in ("", NEW):
                if words == hostdaemons.restart(daemon, copy_for=release):  # type: ignore[arg-type]
                    return self._restart(daemon, release)
            if words == hostdaemons.last_words(daemon):  # type: ignore[arg-type]
                return Finished(code=0, out=b"I am lost\n")
        machine.copy = None
        return Finished(code=0)

    def _put_back(self, left: str) -> Finished:
        machine = self._machine
        self._place.act(machine.name, "put-back")
        machine.control = ""
        if machine.copy is None or machine.copy[0] != left:
            return Finished(code=0)
        if machine.taken:
            return Finished(code=0, out=b"taken\n")
        machine.store, machine.copy = machine.copy[1], None
        return Finished(code=0, out=b"put back\n")

    def _restart(self, daemon: str, copy_for: str) -> Finished:
        machine, place = self._machine, self._place
        release = machine.pin(daemon)[0]
        try:
            place.act(machine.name, daemon, release)
        except Unavailable:  # it was stopped, and the line was cut
            setattr(machine, "agent" if daemon == "agent" else "control", "")
            raise
        if copy_for and (machine.copy is None or machine.copy[0] != copy_for):
            machine.copy = (copy_for, machine.store)
        starts = (daemon, release) not in place.does_not_start
        if daemon == "agent":
            machine.agent = release if starts else ""
            if place.restarts_containers:
                machine.pids = {ident: pid + 1 for ident, pid in machine.pids.items()}
        else:
            machine.control = release if starts else ""
            machine.store = f"of {release}"
        said = f"flota: the {daemon} did not start: no such thing".encode()
        return Finished(code=0) if starts else Finished(code=1, err=said)

    def _installer(self, words: list[str]) -> Finished:
        machine, verb = self._machine, words[0]
        options = dict(zip(words[1::2], words[2::2], strict=True))
        if verb == "install":
            self._place.act(machine.name, "install")
            machine.releases.append(NEW)
        elif verb == "switch":
            self._switch(options["--release"], options["--daemons"].split(","))
        elif verb == "prune":
            pinned = {release for daemon in machine.pins for release in machine.pin(daemon)}
            kept = {machine.current, machine.previous, machine.agent, machine.control, *pinned}
            machine.releases = [r for r in machine.releases if r in kept]
        said = {
            "current": machine.current,
            "previous": machine.previous,
            "pins": {daemon: {"now": now, "before": old} for daemon, (now, old) in machine.pins.items()},
            "aim": machine.aim,
            "releases": sorted(machine.releases),
            "present": options.get("--release") in machine.releases,
            "protocols": {OLDER: 3, OLD: 4, NEW: 5},
        }
        return Finished(code=0, out=json.dumps(said).encode())

    def _switch(self, release: str, daemons: list[str]) -> None:
        machine = self._machine
        if all(machine.pins.get(daemon, ("",))[0] == release for daemon in daemons):
            return
        self._place.act(machine.name, "switch", release)
        for daemon in daemons:
            now, before = machine.pin(daemon)
            machine.pins[daemon] = (release, before if now == release else now)
        if "agent" in daemons and machine.current != release:
            machine.previous, machine.current = machine.current, release

    def _facts(self) -> bytes:
        lines = [hostprobe.BEGIN, "machine x86_64", "libc gnu", "python /usr/bin/python3 3.11.2"]
        lines += [f"time {0}", f"release {self._machine.current}"]
        lines += [f"controls {'f' * 64}"] if self._machine.controller else []
        lines += ["running controller"] if self._machine.control else []
        return "\n".join([*lines, hostprobe.END, ""]).encode()

    async def put(self, source: Path, target: str, mode: int) -> None:
        self._place.act(self._machine.name, "put", target)

    @contextlib.asynccontextmanager
    async def held(self, argv: Sequence[str], *, timeout: float) -> AsyncIterator[str]:
        yield "held"

    async def close(self) -> None:
        return


class FakeBundles:
    release = NEW

    async def bundle(self, facts: Facts, python: str) -> Bundle:
        return Bundle(path=Path("/nowhere"), release=NEW, sha256="00")

    def installer(self) -> bytes:
        return b""
