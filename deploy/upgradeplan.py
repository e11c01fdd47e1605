"""Which daemons are moved to which release, in which order, and what speaks against it. Pure.

Invariant: a controller is never older than its agents: it moves first forwards, last backwards. What a host
runs counts, not only what is to be started there, so that a run which was cut is continued by the next; the
direction of a rollback that was cut is what the hosts have noted, whoever runs or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from deploy.findings import Finding, Level, fatal, note, warning
from deploy.releases import Aim, Installed
from model.spec import Struct

Daemon = Literal["controller", "agent"]


class HostNow(Struct):
    """A host as it is."""

    host: str
    """How it is reached."""
    name: str
    """In the fleet."""
    state: str = ""
    controller: bool = False
    """It runs the fleet's."""
    installed: Installed = Installed()
    agent: str = ""
    """Release that its agent says it runs from; empty: it runs otherwise, or nobody knows."""

    @property
    def daemons(self) -> tuple[Daemon, ...]:
        return ("agent", "controller") if self.controller else ("agent",)


class Move(Struct):
    """One daemon of one host."""

    host: str
    name: str
    daemon: Daemon
    before: str
    """Release; empty: nobody knows: then there is no way back."""
    after: str
    why: str

    def __str__(self) -> str:
        return f"{self.name}: the {self.daemon} from {self.before or 'unknown'} to {self.after} ({self.why})"


class UpgradePlan(Struct):
    """With a fatal finding there are no moves."""

    moves: tuple[Move, ...] = ()
    settled: tuple[str, ...] = ()
    """Names of hosts where nothing is to be done."""
    findings: tuple[Finding, ...] = ()

    @property
    def fatal(self) -> tuple[Finding, ...]:
        return tuple(found for found in self.findings if found.level is Level.FATAL)


class Fleet(Struct):
    """What the fleet says of itself."""

    controller: str = ""
    """Release that the controller says it runs from."""
    agents: Mapping[str, str] = {}
    """Name of each host → release that its agent says it runs from."""


class Wanted(Struct):
    """A release, and what it speaks."""

    release: str
    oldest: int = 0
    """Protocol of the oldest agents that its controller speaks with."""


def upgrade(hosts: Sequence[HostNow], fleet: Fleet, wanted: Wanted) -> UpgradePlan:
    """All of these hosts to that release; the controller first."""
    moves = [move for host in hosts if host.controller for move in _controller(host, fleet, wanted.release)]
    ahead = fleet.controller == wanted.release or bool(moves)
    for host in sorted(hosts, key=lambda h: (not h.controller, h.name)):
        moves += _agent(host, wanted.release, "it follows its controller")
    found = list(_upgrade_findings(hosts, wanted, ahead=ahead or not moves))
    return _made(hosts, moves, found)


def rollback(hosts: Sequence[HostNow], fleet: Fleet) -> UpgradePlan:
    """Each of these hosts to its release before; the controller last. One that is back already, by a run that
    was cut or an upgrade that failed there, stays."""
    found: list[Finding] = []
    moves: list[Move] = []
    head = next((host for host in hosts if host.controller), None)
    goal = _before(head, "controller", fleet) if head is not None else ""
    for host in sorted(hosts, key=lambda h: (h.controller, h.name)):
        now = host.installed.pin("agent").now
        back = goal if goal and goal == now else _before(host, "agent", fleet)
        if not back:
            found.append(fatal(f"{host.name} has no release before {now or 'its own'}"))
            continue
        if back == now and not fleet.controller and host.installed.aim is not None:
            continue  # it is back, or was never moved; the controller is stopped, and can't tell
        moves += _agent(host, back, "it goes back before its controller")
    if head is not None and goal:
        moves += _controller(head, fleet, goal)
        found += _left_ahead(hosts, fleet, goal)
        found += _forwards(head, fleet, goal)
    return _made(hosts, moves, found)


def _before(host: HostNow, daemon: Daemon, fleet: Fleet) -> str:
    """The release that it is to go back to, or has gone back to from that of the controller."""
    pin, aim = host.installed.pin(daemon), host.installed.aim
    if aim is not None:
        noted = aim.release if aim.back else aim.before.get(daemon, "")
        if noted in host.installed.releases:
            return noted
    back_already = fleet.controller and fleet.controller == pin.before != pin.now
    return pin.now if back_already else pin.before


def _going_back(host: HostNow) -> bool:
    return host.installed.aim is not None and host.installed.aim.back


def aim(host: HostNow, release: str, *, back: bool) -> Aim:
    """What is noted on a host before its first change; one that goes on keeps what it began from."""
    known = host.installed.aim
    if known is not None and (known.release, known.back) == (release, back):
        return known
    daemons: tuple[Daemon, ...] = ("agent", "controller")
    return Aim(release=release, back=back, before={d: host.installed.pin(d).now for d in daemons})


def _forwards(head: HostNow, fleet: Fleet, goal: str) -> Iterator[Finding]:
    speaks = head.installed.protocols
    if speaks.get(goal, 0) > speaks.get(fleet.controller, speaks.get(goal, 0)):
        words = f"{goal}, which the fleet ran before, is newer than the controller's {fleet.controller}"
        yield fatal(words, "It is back already; forwards: flota host upgrade --all")


def way_back(host: HostNow, daemon: Daemon, wanted: str, runs: str) -> str:
    """The release to return to when `wanted` does not run: what `runs` now, if it is known. Empty: there is
    none."""
    if runs != wanted and runs in host.installed.releases:
        return runs
    pin = host.installed.pin(daemon)
    return pin.before if pin.now == wanted else pin.now


def _made(hosts: Sequence[HostNow], moves: Sequence[Move], found: Sequence[Finding]) -> UpgradePlan:
    moving = {move.name for move in moves}
    settled = tuple(sorted(host.name for host in hosts if host.name not in moving))
    if any(one.level is Level.FATAL for one in found):
        return UpgradePlan(findings=tuple(found))
    return UpgradePlan(moves=tuple(moves), settled=settled, findings=tuple(found))


def _controller(host: HostNow, fleet: Fleet, wanted: str) -> Iterator[Move]:
    if fleet.controller != wanted or host.installed.pin("controller").now != wanted:
        yield Move(
            host=host.host,
            name=host.name,
            daemon="controller",
            before=way_back(host, "controller", wanted, fleet.controller),
            after=wanted,
            why="it speaks with agents of the release before",
        )


def _agent(host: HostNow, wanted: str, why: str) -> Iterator[Move]:
    pinned = host.installed.pin("agent").now
    if host.agent == wanted == pinned and host.state == "ready":
        return
    if host.agent == wanted == pinned:
        why = f"it is {host.state or 'unknown'}"
    yield Move(
        host=host.host,
        name=host.name,
        daemon="agent",
        before=way_back(host, "agent", wanted, host.agent),
        after=wanted,
        why=why,
    )


def _upgrade_findings(hosts: Sequence[HostNow], wanted: Wanted, *, ahead: bool) -> Iterator[Finding]:
    if not ahead:
        yield fatal(
            "the controller would be older than its agents",
            "Upgrade its host first, or all: flota host upgrade --all",
        )
    for host in hosts:
        speaks = host.installed.protocols.get(host.agent, 0)
        if speaks and speaks < wanted.oldest:
            yield fatal(
                f"{host.name}'s agent speaks protocol {speaks}, {wanted.release} {wanted.oldest} or newer",
                f"Upgrade to a release between {host.agent} and this one first",
            )
        if not host.installed.current:
            yield fatal(
                f"{host.name} was not made by `flota host add`: there is no release on it",
                "Upgrade it as it was installed",
            )
        elif not way_back(host, "agent", wanted.release, host.agent):
            yield warning(f"{host.name} has no release to go back to, should this one not run there")
        if _going_back(host):
            yield note(
                f"a rollback of {host.name} was cut; this one goes forwards, to {wanted.release}",
                "To go on with it: flota host upgrade --rollback --all",
            )
        if host.state != "ready":
            yield note(f"{host.name} is {host.state or 'unknown'} now")


def _left_ahead(hosts: Sequence[HostNow], fleet: Fleet, back: str) -> Iterator[Finding]:
    named = {host.name for host in hosts}
    newer = sorted(name for name, release in fleet.agents.items() if name not in named and release != back)
    if newer:
        yield fatal(
            f"the controller would be older than the agents of {', '.join(newer[:5])}",
            "Roll those back too: flota host upgrade --rollback --all",
        )
