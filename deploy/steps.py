"""What is to be done on a host to make it a member: facts and what is wanted, to ordered steps. Pure.

Invariant: steps follow from what the host is now, so a run that was cut anywhere is continued by the next
one, and a host that is as wanted gets none. What is shown by `--dry-run` is what is done.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from deploy.findings import PYTHON, Finding, Level, fatal, findings, note
from deploy.hostfacts import Facts
from deploy.inventory import HostWish
from model.ids import NAME, short
from model.spec import Struct

ROOT = "/opt/flota"
FLOTA = f"{ROOT}/current/bin/flota"
NO_NAMES = frozenset({"localhost", "localhost.localdomain"})


class Node(Struct):
    """A host, as its fleet knows it."""

    id: str
    name: str
    state: str = ""
    address: str = ""
    version: str = ""
    release: str = ""
    """That its agent runs from; empty: it was not installed by flota."""


class FleetView(Struct):
    """The fleet that hosts are added to."""

    fleet_id: str
    nodes: tuple[Node, ...] = ()

    def node(self, ref: str) -> Node | None:
        """By id or name."""
        return next((node for node in self.nodes if ref in (node.id, node.name)), None)


class Software(Struct):
    """What a host lacks of programs, as its distribution names it."""

    packages: tuple[str, ...] = ()
    commands: tuple[tuple[str, ...], ...] = ()
    """That install them, one after the other."""
    brings_python: bool = False
    findings: tuple[Finding, ...] = ()


class Kind(StrEnum):
    PACKAGES = "packages"
    RELEASE = "release"
    UP = "up"
    JOIN = "join"
    START = "start"
    READY = "ready"


class Step(Struct):
    kind: Kind
    what: str
    why: str
    commands: tuple[tuple[str, ...], ...] = ()
    """Run on the host as they stand. `release` runs what its bundle says."""
    packages: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.what} ({self.why})"


class Plan(Struct):
    """Of one host. With a fatal finding there are no steps."""

    name: str = ""
    """In the fleet."""
    steps: tuple[Step, ...] = ()
    findings: tuple[Finding, ...] = ()
    settled: str = ""
    """Why nothing is to be done; empty: something is."""
    replaces: str = ""
    """Id of the host whose record it takes over."""

    @property
    def fatal(self) -> tuple[Finding, ...]:
        return tuple(found for found in self.findings if found.level is Level.FATAL)


def plan(
    facts: Facts,
    wish: HostWish,
    fleet: FleetView | None,
    software: Software,
    *,
    controller: str = "",
    release: str = "",
) -> Plan:
    """`fleet` is None while it is to be founded. `controller`: where hosts join it, ADDRESS:PORT; `release`:
    the name of ours, empty where it has not been made."""
    node = fleet.node(facts.member.host_id) if facts.member and fleet else None
    said = facts.member.name if facts.member else ""
    name = node.name if node else said or wish.name or facts.hostname
    if settled := _settled(facts, fleet, name):
        found = (*_other_release(facts, name, release), *_other_name(wish, name))
        return Plan(name=name, settled=settled, findings=found)
    found = (*_belonging(facts, wish, fleet, name), *findings(facts, controller=wish.controller))
    found = (*found, *software.findings, *_python(facts, software))
    if any(one.level is Level.FATAL for one in found):
        return Plan(name=name, findings=found)
    same = fleet.node(name) if fleet and not facts.member and not facts.controls else None
    return Plan(
        name=name,
        findings=found,
        steps=tuple(_steps(facts, wish, software, name, controller, release)),
        replaces=same.id if same is not None else "",
    )


def _settled(facts: Facts, fleet: FleetView | None, name: str) -> str:
    if facts.member is None or fleet is None or facts.member.fleet_id != fleet.fleet_id:
        return ""
    node = fleet.node(facts.member.host_id)
    if node is None or node.state != "ready" or "agent" not in facts.running:
        return ""
    return f"it is a member already, as {node.name}"


def _other_release(facts: Facts, name: str, release: str) -> Iterator[Finding]:
    if facts.release and release and facts.release != release:
        yield note(f"it runs release {facts.release}, ours is {release}", f"flota host upgrade {name}")


def _other_name(wish: HostWish, name: str) -> Iterator[Finding]:
    if wish.name and wish.name != name:
        yield note(f"its name stays {name}", f"To have it as {wish.name}: flota host rm, then add it again")


def _belonging(facts: Facts, wish: HostWish, fleet: FleetView | None, name: str) -> Iterator[Finding]:
    """What it is a part of already."""
    leave = "To give that up, run `flota down --purge` there first"
    if facts.opt == "foreign":
        yield fatal(f"{ROOT} is there and is not flota's", "Move it away")
    if wish.controller and fleet is None:
        if facts.member and facts.member.fleet_id != facts.controls:
            yield fatal(f"it belongs to another fleet ({short(facts.member.fleet_id) or 'unknown'})", leave)
    elif facts.member and (fleet is None or facts.member.fleet_id != fleet.fleet_id):
        yield fatal(f"it belongs to another fleet ({short(facts.member.fleet_id) or 'unknown'})", leave)
    elif facts.controls and (fleet is None or facts.controls != fleet.fleet_id):
        yield fatal(f"it is the controller of another fleet ({short(facts.controls)})", leave)
    elif facts.member and fleet is not None and fleet.node(facts.member.host_id) is None:
        yield fatal("its fleet has removed it, and it has not left", leave)
    elif not facts.member and fleet is not None and not facts.controls:
        node = fleet.node(name)
        # one that never came was added by a run that was cut
        if node is not None and node.state != "joining" and (node.state == "ready" or not wish.replace):
            yield fatal(
                f"a node named {name} is in the fleet ({node.state})",
                "Give this host another name (--name); if it is that one, installed anew, say --replace, "
                f"or remove that one: flota node rm {name}",
            )
    if not NAME.match(name) or name in NO_NAMES:
        yield fatal(f"its host name {name[:60]!r} is no name for it in the fleet", "Give it one with --name")


def _python(facts: Facts, software: Software) -> Iterator[Finding]:
    if facts.python(PYTHON) is None and not software.brings_python:
        versions = ", ".join(sorted({".".join(map(str, p.version)) for p in facts.pythons})) or "none"
        yield fatal(
            f"it has no Python {'.'.join(map(str, PYTHON))} or newer that is whole (found: {versions})",
            f"Install one there; {facts.os_name or 'its distribution'} offers none that we know of",
        )


def _steps(
    facts: Facts, wish: HostWish, software: Software, name: str, controller: str, release: str
) -> Iterator[Step]:
    if software.packages:
        yield Step(
            kind=Kind.PACKAGES,
            what=f"install packages {' '.join(software.packages)}",
            why="the host lacks them",
            commands=software.commands,
            packages=software.packages,
        )
    if not facts.release or (release and facts.release != release and facts.member is None):
        yield Step(
            kind=Kind.RELEASE,
            what=f"install flota {release or '(this release)'} in {ROOT}",
            why=f"the host has {facts.release}" if facts.release else "the host has none",
        )
    yield from _membership(facts, wish, name, controller)
    yield Step(
        kind=Kind.READY, what="wait until it is ready", why="a host is added once it can take containers"
    )


def _membership(facts: Facts, wish: HostWish, name: str, controller: str) -> Iterator[Step]:
    words = ("--name", name, *(("--address", wish.address) if wish.address else ()))
    labels = tuple(word for pair in sorted(wish.labels.items()) for word in ("--label", "=".join(pair)))
    if wish.controller or facts.controls:
        yield Step(
            kind=Kind.UP,
            what="start controller and agent" if facts.controls else "found the fleet: controller and agent",
            why="they don't all run" if facts.controls else "it is to be the controller",
            commands=((FLOTA, "up", *words, *labels, *(("--replace",) if wish.replace else ())),),
        )
    elif facts.member is None:
        yield Step(
            kind=Kind.JOIN,
            what=f"join the fleet{f' at {controller}' if controller else ''} as {name}",
            why="it takes that one's place" if wish.replace else "it is no member",
            commands=((FLOTA, "join", *words, *labels, "-", controller or "ADDRESS:PORT"),),
        )
    elif "agent" not in facts.running:
        yield Step(
            kind=Kind.START,
            what="start the agent",
            why="it is a member, and its agent does not run",
            commands=((FLOTA, "agent", "--detach"),),
        )
