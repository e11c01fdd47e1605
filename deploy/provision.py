"""Makes hosts members of a fleet: asks each what it is, plans, does the steps; many hosts at once, bounded.

Invariant: on a host one provisioning at a time (a lock that ends with its connection), only what its plan
says, and each step is safe to do again: a run that was cut anywhere is continued by the next. A host that
fails leaves the others alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from aio.together import together
from deploy import hostfacts, hostprobe
from deploy.bundles import BundleSource
from deploy.findings import PYTHON
from deploy.fleetport import FleetOverTransport, FleetPort
from deploy.hostfacts import Facts
from deploy.hostlock import changing, locked
from deploy.hostreleases import HostReleases
from deploy.inventory import HostWish, Target
from deploy.software import PROOFS, needed, recorded_by
from deploy.steps import FleetView, Kind, Plan, Step, plan
from deploy.transport import Transport, checked
from model.errors import (
    CommandFailed,
    DeadlineExceeded,
    FlotaError,
    InvalidInput,
    Unavailable,
    Unsupported,
)
from model.spec import Struct

PROBE_DEADLINE, STEP_DEADLINE, PACKAGES_DEADLINE, READY_DEADLINE = 60.0, 180.0, 1200.0, 90.0
LOOK_EVERY = 0.5
ADMIN = "/var/lib/flota/controller/admin.json"
LAST_WORDS = """tail -n 5 /var/lib/flota/log/agent.log 2>/dev/null ||
  journalctl -q -n 5 -o cat -u flota-agent 2>/dev/null"""

Connect = Callable[[Target], Awaitable[Transport]]


class Outcome(Struct):
    """What became of one host."""

    host: str
    """As the operator wrote it."""
    target: Target
    name: str = ""
    result: str = "failed"
    """added, already, planned, failed"""
    plan: Plan = Plan()
    facts: Facts = Facts()
    error: str = ""
    """For people, whole; empty: it went well."""
    host_id: str = ""


class Report(Protocol):
    """Told of what happens, as it happens."""

    def __call__(self, host: str, state: str, text: str) -> None: ...


class Provisioner:
    """One run. `connect` opens transports; `source` makes bundles; `dry`: only plan; `patience`: seconds for
    which a host may take to become ready."""

    def __init__(
        self,
        connect: Connect,
        source: BundleSource,
        report: Report,
        *,
        parallel: int = 8,
        dry: bool = False,
        patience: float = READY_DEADLINE,
    ) -> None:
        self._connect = connect
        self._source = source
        self._report = report
        self._turn = asyncio.Semaphore(parallel)
        self._dry = dry
        self._patience = patience
        self._names: dict[str, Target] = {}

    async def add(
        self, wishes: Sequence[HostWish], fleet: FleetPort | None, founded: Founded
    ) -> list[Outcome]:
        """The hosts' outcomes; the controller, if one is among them, is first, and the others join
        it; `founded` is told of it. Without one they join `fleet`."""
        first = next((wish for wish in wishes if wish.controller), None)
        if first is None:
            if fleet is None:
                raise InvalidInput(
                    "hosts need a fleet to join", hint="Found one: flota host add --controller HOST …"
                )
            return list(await together(self._host(wish, fleet) for wish in wishes))
        try:
            transport = await self._connect(first.target)
        except FlotaError as error:
            failed = self._failed(first, error)
            return [failed, *(self._waiting(wish, first) for wish in wishes if wish is not first)]
        try:
            outcome = await self._on(transport, first, None)
            done = [outcome]
            rest = [wish for wish in wishes if wish is not first]
            if outcome.result in ("failed", "planned"):
                if outcome.result == "planned" and rest:
                    done += await together(self._host(wish, None) for wish in rest)
                else:
                    done += [self._waiting(wish, first) for wish in rest]
                return done
            if not self._dry:
                await founded(transport)
            port = FleetOverTransport(transport)
            done += await together(self._host(wish, port) for wish in rest)
            return done
        finally:
            await transport.close()

    async def _host(self, wish: HostWish, fleet: FleetPort | None) -> Outcome:
        async with self._turn:
            self._report(str(wish.target), "connecting", "logging in")
            try:
                transport = await self._connect(wish.target)
            except FlotaError as error:
                return self._failed(wish, error)
            try:
                return await self._on(transport, wish, fleet)
            finally:
                await transport.close()

    async def _on(self, to: Transport, wish: HostWish, fleet: FleetPort | None) -> Outcome:
        try:
            if self._dry:
                return await self._planned(to, wish, fleet)
            async with locked(to):
                return await self._done(to, wish, fleet)
        except FlotaError as error:
            return self._failed(wish, error)

    async def _planned(self, to: Transport, wish: HostWish, fleet: FleetPort | None) -> Outcome:
        facts, made = await self._plan(to, wish, fleet)
        result = "failed" if made.fatal else "already" if made.settled else "planned"
        self._report(str(wish.target), result, made.settled or "planned")
        return self._outcome(wish, result, made, facts)

    async def _done(self, to: Transport, wish: HostWish, fleet: FleetPort | None) -> Outcome:
        where = str(wish.target)
        facts, made = await self._plan(to, wish, fleet)
        if made.fatal:
            self._report(where, "failed", made.fatal[0].what)
            return self._outcome(wish, "failed", made, facts)
        if made.settled:
            self._report(where, "already", made.settled)
            return self._outcome(wish, "already", made, facts)
        running = _Run(to, made, facts, fleet, self._source, self._patience)
        for step in made.steps:
            self._report(where, "working", step.what)
            await running.do(step)
        self._report(where, "added", f"is ready, as {made.name}")
        return self._outcome(wish, "added", made, facts, running.host_id)

    async def _plan(self, to: Transport, wish: HostWish, fleet: FleetPort | None) -> tuple[Facts, Plan]:
        self._report(str(wish.target), "looking", "asking what the host is")
        facts = await look(to)
        view = await fleet.view() if fleet is not None else None
        if view is None and wish.controller and facts.member and facts.controls == facts.member.fleet_id:
            view = await self._own_view(to, facts)
        made = plan(facts, wish, view, needed(facts), release=self._source.release)
        self._claim(made, wish)
        return facts, made

    async def _own_view(self, to: Transport, facts: Facts) -> FleetView | None:
        """Of a controller that is one already; None while it does not run."""
        return await FleetOverTransport(to).view() if "controller" in facts.running else None

    def _claim(self, made: Plan, wish: HostWish) -> None:
        """A name is one host's. Behind different hosts one address is two hosts'."""
        other = self._names.setdefault(made.name, wish.target)
        if other != wish.target:
            raise InvalidInput(
                f"{wish.target}: its name would be {made.name}, as that of {other}",
                hint="Give it another with --name, or in an inventory file",
            )

    def _outcome(self, wish: HostWish, result: str, made: Plan, facts: Facts, host_id: str = "") -> Outcome:
        where = str(wish.target)
        error = f"{where}: " + "; ".join(map(str, made.fatal)) if made.fatal else ""
        known = facts.member.host_id if facts.member else ""
        return Outcome(
            host=where,
            target=wish.target,
            name=made.name,
            result=result,
            plan=made,
            facts=facts,
            error=error,
            host_id=host_id or known,
        )

    def _failed(self, wish: HostWish, error: FlotaError) -> Outcome:
        where = str(wish.target)
        self._report(where, "failed", error.message.removeprefix(f"{where}: "))
        return Outcome(host=where, target=wish.target, name=wish.name, error=str(error))

    def _waiting(self, wish: HostWish, first: HostWish) -> Outcome:
        where = str(wish.target)
        self._report(where, "failed", "there is no controller to join")
        return Outcome(
            host=where,
            target=wish.target,
            name=wish.name,
            error=f"{where}: not tried, as the controller on {first.target} does not run",
        )


Founded = Callable[[Transport], Awaitable[None]]


async def look(to: Transport) -> Facts:
    """What a host is. Changes nothing there."""
    programs, files = PROOFS
    script = hostprobe.script(files, programs).encode()
    began = time.time()
    done = await to.run(["sh", "-s"], stdin=script, timeout=PROBE_DEADLINE)
    return hostfacts.parse(done.out, host=to.host, asked_at=began, answered_at=time.time())


class _Run:
    """Does steps on one host."""

    def __init__(
        self,
        to: Transport,
        made: Plan,
        facts: Facts,
        fleet: FleetPort | None,
        source: BundleSource,
        patience: float,
    ) -> None:
        self._to = to
        self._patience = patience
        self._plan = made
        self._facts = facts
        self._fleet: FleetPort = fleet if fleet is not None else FleetOverTransport(to)
        self._source = source
        self.host_id = ""

    async def do(self, step: Step) -> None:
        """Raises FlotaError, with the host's name."""
        match step.kind:
            case Kind.PACKAGES:
                await self._packages(step)
            case Kind.RELEASE:
                await self._release()
            case Kind.JOIN:
                await self._join(step)
            case Kind.UP | Kind.START:
                await self._commands(step, STEP_DEADLINE)
            case Kind.READY:
                await self._ready()

    async def _commands(self, step: Step, timeout: float) -> None:
        for argv in step.commands:
            await checked(self._to, changing(argv), timeout=timeout, what=step.what)

    async def _packages(self, step: Step) -> None:
        """Where the lists of packages can't be fetched, those of before may do."""
        *refreshing, install = step.commands
        for argv in refreshing:
            await self._to.run(changing(argv), timeout=PACKAGES_DEADLINE)
        words = changing(recorded_by(install, step.packages))
        await checked(self._to, words, timeout=PACKAGES_DEADLINE, what=step.what)

    async def _release(self) -> None:
        found = {step.kind for step in self._plan.steps}
        await install_release(
            self._to, await self._python(), self._facts, self._source, controls=Kind.UP in found
        )

    async def _python(self) -> str:
        """The host's own, also one that came a step ago."""
        found = self._facts.python(PYTHON)
        if found is None:
            self._facts = await look(self._to)
            found = self._facts.python(PYTHON)
        if found is None:
            raise Unsupported(
                f"{self._to.host}: its packages brought no Python of {'.'.join(map(str, PYTHON))} or newer",
                hint="Install one there",
            )
        return found.path

    async def _join(self, step: Step) -> None:
        invitation = await self._fleet.invite(self._plan.replaces)
        (argv,) = step.commands
        words = changing([*argv[:-1], invitation.address])
        await checked(
            self._to, words, stdin=f"{invitation.token}\n".encode(), timeout=STEP_DEADLINE, what=step.what
        )

    async def _ready(self) -> None:
        """Its fleet says so. Raises DeadlineExceeded with the agent's own last words."""
        end = time.monotonic() + self._patience
        state = "unknown"
        while time.monotonic() < end:
            try:
                node = (await self._fleet.view()).node(self._plan.name)
            except (Unavailable, CommandFailed):
                node = None  # a controller that has just started
            if node is not None:
                state, self.host_id = node.state, node.id
                if state == "ready":
                    return
            await asyncio.sleep(LOOK_EVERY)
        said = await self._to.run(["sh", "-c", LAST_WORDS], timeout=PROBE_DEADLINE)
        words = said.text.strip()[-800:] or "it has logged nothing"
        raise DeadlineExceeded(
            f"{self._to.host}: {self._plan.name} is not ready after {self._patience:g} s ({state}); "
            f"its agent's last words:\n{words}",
            hint="Run it again once that is mended",
        )


async def install_release(
    to: Transport, python: str, facts: Facts, source: BundleSource, *, controls: bool
) -> str:
    """Have the host's daemons run our release. Its name. `controls`: a controller is one of them. Does
    nothing twice."""
    at = HostReleases(to, python, source)
    await at.ship(facts)
    await at.switch(source.release, ("agent", "controller") if controls else ("agent",))
    return source.release


async def credentials(controller: Transport) -> bytes:
    """What a command line elsewhere needs to be an admin of the fleet."""
    done = await checked(
        controller, ["cat", ADMIN], timeout=PROBE_DEADLINE, what="reading the admin's credentials"
    )
    return done.out
