"""Takes a host out of its fleet: drained, emptied of flota, forgotten. Each step is left out where it is
done.

Invariant: nothing is taken from the host before what it carries is elsewhere, or was given up by `force`;
volumes and packages stay unless asked for.
"""

from __future__ import annotations

import asyncio
import time

from deploy import releases
from deploy.bundles import BundleSource
from deploy.findings import PYTHON
from deploy.fleetport import FleetPort
from deploy.hostfacts import Facts
from deploy.hostlock import changing, locked
from deploy.provision import LOOK_EVERY, Report, look
from deploy.roster import KnownHost
from deploy.software import RECORD, recorded, removal
from deploy.steps import FLOTA, ROOT, FleetView, Node
from deploy.transport import Transport, checked
from model.errors import DeadlineExceeded, InUse, NotFound, Unsupported, WrongState
from model.ids import short
from model.spec import Struct

VOLUMES = "/var/lib/flota/agent/volumes"
KEEP = "--keep-volumes"
PURGE_DEADLINE, PACKAGES_DEADLINE, PROBE_DEADLINE = 300.0, 600.0, 30.0


class Removed(Struct):
    name: str
    packages: tuple[str, ...] = ()
    """That were installed for flota, and are there still."""
    ended: bool = False
    """It was the controller: there is no fleet any more."""
    volumes: tuple[str, ...] = ()
    """That are in `VOLUMES` there still."""


class Wishes(Struct):
    """How far to go."""

    force: bool = False
    """Give up its containers."""
    packages: bool = False
    """Also the packages that were installed for flota."""
    volumes: bool = False
    """Also its volumes."""
    drain_timeout: float = 120.0


async def remove(
    to: Transport,
    known: KnownHost | None,
    fleet: FleetPort,
    source: BundleSource,
    wishes: Wishes,
    report: Report,
) -> Removed:
    """`known`: who it is; None: who it says that it is. Raises FlotaError, with the host's name."""
    async with locked(to):
        facts = await look(to)
        view = await fleet.view()
        node = _node(to.host, facts, view, known)
        name = node.name if node is not None else known.name if known is not None else ""
        if facts.release and not wishes.volumes:
            await _may_keep(to)
        if facts.controls:
            _may_end(to.host, view, wishes)
        elif node is not None:
            await _drained(to.host, node, fleet, wishes, report)
        packages = await _emptied(to, facts, source, wishes, report)
        left = () if wishes.volumes else await volumes(to)
        if node is not None and not facts.controls:
            report(to.host, "working", f"the fleet forgets {node.name}")
            await fleet.remove(node.id)
        report(to.host, "removed", f"{name} is no member any more")
        return Removed(name=name, packages=packages, ended=bool(facts.controls), volumes=left)


async def volumes(to: Transport) -> tuple[str, ...]:
    """Names of a host's volumes."""
    done = await to.run(["ls", VOLUMES], timeout=PROBE_DEADLINE)
    return tuple(sorted(done.text.split())) if not done.code else ()


async def _may_keep(to: Transport) -> None:
    """Raises Unsupported for a flota of before volumes could be kept, on a host that has some."""
    said = await to.run([FLOTA, "down", "--help"], timeout=PROBE_DEADLINE)
    if KEEP not in said.text and (found := await volumes(to)):
        raise Unsupported(
            f"{to.host}: its flota would remove its {len(found)} volumes too ({', '.join(found[:5])})",
            hint="First: flota host upgrade; or give them up with --volumes",
        )


def _node(host: str, facts: Facts, view: FleetView, known: KnownHost | None) -> Node | None:
    """None: the fleet knows it no more, but the host has something of flota still. A host that is known can't
    have another one drained and forgotten in its place."""
    if facts.controls and facts.controls != view.fleet_id:
        raise WrongState(
            f"{host}: it is the controller of another fleet ({short(facts.controls)})",
            hint="Point FLOTA_HOST at that fleet, or run `flota down --purge` on the host",
        )
    if facts.member is None:
        node = view.node(known.host_id) if known is not None else None
        if node is None and not facts.release and not facts.opt:
            raise NotFound(f"{host}: it is no member of a fleet, and has nothing of flota")
        return node
    if facts.member.fleet_id != view.fleet_id:
        raise WrongState(
            f"{host}: it belongs to another fleet ({short(facts.member.fleet_id) or 'unknown'})",
            hint="Point FLOTA_HOST at that fleet, or run `flota down --purge` on the host",
        )
    if known is not None and facts.member.host_id != known.host_id:
        raise WrongState(
            f"{host}: it says that it is {facts.member.name or 'another host'}, not {known.name}",
            hint="Is another machine at that address now? Say it as user@host, or: flota node rm",
        )
    if not facts.release:
        raise WrongState(
            f"{host}: there is no whole flota in {ROOT} that could empty it",
            hint="Run `flota down --purge` on it, then: flota node rm; or mend it first: flota host add",
        )
    return view.node(facts.member.host_id)


def _may_end(host: str, view: FleetView, wishes: Wishes) -> None:
    """The controller is the fleet."""
    if len(view.nodes) > 1:
        raise InUse(
            f"{host}: it is the controller of {len(view.nodes) - 1} other hosts", hint="Remove those first"
        )
    if not wishes.force:
        raise InUse(f"{host}: it is the controller: the fleet ends with it", hint="Say so with --force")


async def _drained(host: str, node: Node, fleet: FleetPort, wishes: Wishes, report: Report) -> None:
    plain = await fleet.plain(node.name)
    if plain and not wishes.force:
        shown = ", ".join(plain[:5])
        raise InUse(
            f"{host}: {node.name} has {len(plain)} containers that are no service's ({shown})",
            hint="Move or remove them, or give them up with --force",
        )
    report(host, "working", "its services' containers move elsewhere")
    await fleet.drain(node.id)
    end = time.monotonic() + (0 if wishes.force else wishes.drain_timeout)
    while staying := await fleet.staying(node.name):
        if wishes.force:
            return
        if time.monotonic() > end:
            raise DeadlineExceeded(
                f"{host}: after {wishes.drain_timeout:g} s {len(staying)} containers of services are there "
                f"still ({', '.join(staying[:5])}); it takes nothing new",
                hint=f"See `flota why {staying[0]}`; give them up with --force",
            )
        await asyncio.sleep(LOOK_EVERY)


async def _emptied(
    to: Transport, facts: Facts, source: BundleSource, wishes: Wishes, report: Report
) -> tuple[str, ...]:
    """The packages that stay."""
    packages = recorded((await to.run(["cat", RECORD], timeout=PROBE_DEADLINE)).text)
    if facts.release:
        report(to.host, "working", "containers, networks and state are removed")
        keeps = [] if wishes.volumes or not await volumes(to) else [KEEP]
        words = changing([FLOTA, "down", "--purge", *keeps])
        await checked(to, words, timeout=PURGE_DEADLINE, what="`flota down --purge`")
    python = facts.python(PYTHON)
    if facts.opt == "ours" and python is not None:
        script = source.installer()
        words = changing(releases.remove(python=python.path))
        done = await to.run(words, stdin=script, timeout=PURGE_DEADLINE)
        releases.answer(to.host, done.code, done.out, done.err)
    command = removal(facts, packages)
    if packages and wishes.packages and command:
        report(to.host, "working", f"packages are removed: {' '.join(packages)}")
        await checked(to, changing(command), timeout=PACKAGES_DEADLINE, what="removing packages")
        return ()
    return packages
