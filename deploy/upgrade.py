"""Moves the daemons of a fleet's hosts to another release, one host at a time, and back where one does not
run.

Invariant: nothing is moved before every host was seen and has the release; a daemon that does not come back
is put back to what it was, and nothing further is moved. Containers go on all the while: their processes are
compared. A run that was cut anywhere is continued by the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from aio.together import together
from deploy import hostdaemons
from deploy.bundles import BundleSource
from deploy.findings import PYTHON
from deploy.hostfacts import Facts
from deploy.hostlock import changing, locked
from deploy.hostreleases import HostReleases
from deploy.inventory import Target
from deploy.provision import Report, look
from deploy.roster import KnownHost
from deploy.transport import Transport, checked
from deploy.upgradeplan import Fleet, HostNow, Move, UpgradePlan, Wanted, aim, rollback, upgrade
from model.errors import CommandFailed, DeadlineExceeded, FlotaError, Unavailable, Unsupported, WrongState
from model.spec import Struct
from model.wire import OLDEST

RESTART_DEADLINE, WORDS_DEADLINE = 300.0, 30.0
AT_ONCE = 16
"""Hosts that are looked at, or sent the release, at a time."""
Connect = Callable[[Target], Awaitable[Transport]]


class NodeNow(Struct):
    state: str = ""
    release: str = ""
    """That its agent says it runs from."""


class FleetNow(Struct):
    controller: str = ""
    """Release that it says it runs from."""
    nodes: Mapping[str, NodeNow] = {}
    """By name."""


class Watch(Protocol):
    """The fleet, as its controller tells. All raise Unavailable while there is none."""

    async def look(self) -> FleetNow: ...

    async def expect_away(self, name: str, seconds: float) -> None:
        """The silence of that host is no loss: nothing is replaced."""
        ...

    async def processes(self, name: str) -> Mapping[str, int]:
        """Running containers of a host → their processes."""
        ...


class Moved(Struct):
    """What became of a move."""

    move: Move
    error: str = ""
    """For people; empty: it went well."""
    back: bool = False
    """It is again what it was."""


class Run(Struct):
    """Of one run."""

    plan: UpgradePlan
    moved: tuple[Moved, ...] = ()


class _Host:
    """A connection, and what is known by it."""

    def __init__(self, known: KnownHost, to: Transport, facts: Facts, at: HostReleases, now: HostNow) -> None:
        self.known = known
        self.to = to
        self.facts = facts
        self.at = at
        self.now = now


class Upgrader:
    """One run. `parallel`: agents that are moved at a time. A daemon has `patience` seconds to be ready again
    once it answers; the fleet is asked every `look_every`."""

    def __init__(
        self,
        connect: Connect,
        source: BundleSource,
        watch: Watch,
        report: Report,
        *,
        parallel: int = 1,
        patience: float = 90.0,
        look_every: float = 0.5,
    ) -> None:
        self._patience = patience
        self._look_every = look_every
        self._connect = connect
        self._source = source
        self._watch = watch
        self._report = report
        self._parallel = parallel
        self._hosts: dict[str, _Host] = {}
        self._before = FleetNow()
        self._answering: set[str] = set()
        """Releases of controllers that answered."""

    async def run(self, hosts: Sequence[KnownHost], *, back: bool = False, dry: bool = False) -> Run:
        """Raises FlotaError, with all that is wrong, where nothing was changed."""
        async with contextlib.AsyncExitStack() as stack:
            with contextlib.suppress(Unavailable):  # its controller may be what a cut run left behind
                self._before = await self._watch.look()
            await self._look_at(hosts, stack, lock=not dry)
            plan = self._plan(back)
            if plan.fatal:
                raise WrongState("; ".join(map(str, plan.fatal)))
            if dry:
                return Run(plan=plan)
            if not back:
                await self._ship(plan)
                await self._keep_copy(plan)
            await self._begin(plan, back=back)
            moved = await self._move_all(plan.moves)
            if all(one.back or not one.error for one in moved):
                await self._end()
            return Run(plan=plan, moved=moved)

    # -- before ------------------------------------------------------------------------------------
    async def _look_at(
        self, hosts: Sequence[KnownHost], stack: contextlib.AsyncExitStack, *, lock: bool
    ) -> None:
        turn = asyncio.Semaphore(AT_ONCE)
        errors: list[FlotaError] = []

        async def one(known: KnownHost) -> None:
            async with turn:
                try:
                    self._report(known.name, "looking", "asking what the host has")
                    to = await self._connect(known.target)
                    stack.push_async_callback(to.close)
                    if lock:
                        await stack.enter_async_context(locked(to))
                    self._hosts[known.name] = await self._seen(known, to)
                except FlotaError as error:
                    self._report(known.name, "failed", error.message)
                    errors.append(error)

        await together(one(known) for known in hosts)
        if errors:
            words = "; ".join(sorted(error.message for error in errors))
            raise Unavailable(f"{words}; nothing was changed", hint=errors[0].hint)

    async def _seen(self, known: KnownHost, to: Transport) -> _Host:
        facts = await look(to)
        python = facts.python(PYTHON)
        if python is None:
            raise Unsupported(f"{to.host}: there is no Python of {'.'.join(map(str, PYTHON))} or newer")
        at = HostReleases(to, python.path, self._source)
        node = self._before.nodes.get(known.name, NodeNow())
        now = HostNow(
            host=to.host,
            name=known.name,
            state=node.state,
            # one whose controller was restored elsewhere has its state still, and must not start it
            controller=bool(facts.controls)
            and ("controller" in facts.running or not self._before.controller),
            installed=await at.facts(self._source.release),
            agent=node.release,
        )
        return _Host(known, to, facts, at, now)

    def _plan(self, back: bool) -> UpgradePlan:
        hosts = [host.now for host in self._hosts.values()]
        if len(heads := sorted(host.name for host in hosts if host.controller)) > 1:
            raise WrongState(
                f"{', '.join(heads)} all have a controller's state; nothing was changed",
                hint="Stop those that the fleet does not obey, and move /var/lib/flota/controller away there",
            )
        agents = {name: node.release for name, node in self._before.nodes.items()}
        fleet = Fleet(controller=self._before.controller, agents=agents)
        if back:
            return rollback(hosts, fleet)
        return upgrade(hosts, fleet, Wanted(release=self._source.release, oldest=OLDEST))

    async def _ship(self, plan: UpgradePlan) -> None:
        turn = asyncio.Semaphore(AT_ONCE)

        async def one(name: str) -> None:
            async with turn:
                self._report(name, "working", f"release {self._source.release} is put there")
                host = self._hosts[name]
                await host.at.ship(host.facts)

        await together(one(name) for name in dict.fromkeys(move.name for move in plan.moves))

    async def _begin(self, plan: UpgradePlan, *, back: bool) -> None:
        """Hosts know where this goes before the first one is changed: the run may be cut."""

        async def one(name: str, release: str) -> None:
            host = self._hosts[name]
            words = hostdaemons.begin(aim(host.now, release, back=back))
            await checked(host.to, changing(words), timeout=WORDS_DEADLINE, what="noting what is to come")

        await together(one(name, to) for name, to in {move.name: move.after for move in plan.moves}.items())

    async def _end(self) -> None:
        """What stands on hosts says all again."""

        async def one(host: _Host) -> None:
            with contextlib.suppress(FlotaError):  # a note that stays says where all are already
                await host.to.run(changing(hostdaemons.end()), timeout=WORDS_DEADLINE)

        await together(one(host) for host in self._hosts.values())

    async def _keep_copy(self, plan: UpgradePlan) -> None:
        """A controller that runs the release already needs no more the copy of a run that was cut; under one
        that runs another since, the copy has grown old, and a new one is made."""
        moving = {move.name for move in plan.moves if move.daemon == "controller"}
        for name, host in self._hosts.items():
            stale = self._before.controller not in ("", self._source.release)
            if host.now.controller and (stale or name not in moving):
                await self._copy_kept(host, host.now.installed.pin("controller").before)

    async def _copy_kept(self, host: _Host, release: str) -> None:
        words = hostdaemons.upgraded(release)
        await checked(host.to, changing(words), timeout=WORDS_DEADLINE, what="keeping the copy of the store")

    # -- moves -------------------------------------------------------------------------------------
    async def _move_all(self, moves: Sequence[Move]) -> tuple[Moved, ...]:
        """In order; agents some at a time; no further ones after a failure."""
        done: list[Moved] = []
        waiting = list(moves)
        while waiting and not any(one.error for one in done):
            many = self._parallel if waiting[0].daemon == "agent" else 1
            turn = [move for move in waiting[:many] if move.daemon == waiting[0].daemon]
            done += await together(self._moved(move) for move in turn)
            waiting = waiting[len(turn) :]
        for name in dict.fromkeys(one.move.name for one in done if not one.error):
            with contextlib.suppress(FlotaError):  # room that is not given back now is so by the next upgrade
                host = self._hosts[name]
                await host.at.prune(host.now.daemons)
        return tuple(done)

    async def _moved(self, move: Move) -> Moved:
        host = self._hosts[move.name]
        self._report(move.name, "working", f"the {move.daemon} goes to {move.after}")
        processes = await self._processes(move.name)
        try:
            await self._go(host, move)
        except FlotaError as error:
            return await self._back(host, move, error)
        if changed := _changed(processes, await self._processes(move.name)):
            words = f"{host.to.host}: containers were started again: {', '.join(changed[:5])}"
            self._report(move.name, "failed", words)
            return Moved(move=move, error=f"{words}. This must not happen: see its agent's log")
        self._report(move.name, "upgraded", f"the {move.daemon} runs {move.after}")
        return Moved(move=move)

    async def _go(self, host: _Host, move: Move) -> None:
        forwards = move.daemon == "controller" and move.after == self._source.release
        await host.at.switch(move.after, (move.daemon,))
        await self._restart(host, move, copy_for=move.after if forwards else "")
        await self._ready(host, move, move.after)
        if move.daemon == "controller":
            await self._copy_kept(host, move.before)

    async def _back(self, host: _Host, move: Move, error: FlotaError) -> Moved:
        """To what it was, after that error."""
        self._report(move.name, "working", f"back to {move.before or 'what it was'}: {error.message}")
        by_hand = f"On the host, see `flota {move.daemon}`; then run this again"
        if not move.before:
            self._report(move.name, "failed", error.message)
            return Moved(move=move, error=f"{error.message}. There is no release to go back to. {by_hand}")
        try:
            if move.daemon == "controller":
                store = await self._controller_back(host, move)
            else:
                store = ""
                await self._start_again(host, move)
        except FlotaError as second:
            with contextlib.suppress(FlotaError):  # now its silence is a loss like anybody's
                await self._watch.expect_away(move.name, 0.0)
            words = f"{error.message}; and going back to {move.before} failed: {second.message}"
            self._report(move.name, "failed", words)
            return Moved(move=move, error=f"{words}. {by_hand}")
        words = f"{error.message}. It is back on {move.before}{store}; hosts after it were not touched"
        self._report(move.name, "failed", words)
        return Moved(move=move, error=words, back=True)

    async def _controller_back(self, host: _Host, move: Move) -> str:
        """How its store is now, in words. What a controller stored that took commands counts, as long as the
        old one can read it."""
        if await self._answered(move.after) and await self._takes_over(host, move):
            await self._copy_kept(host, move.after)  # it is on no trial: what it stores from now on counts
            await self._ready(host, move, move.before)
            return ""
        words = changing(hostdaemons.put_back(move.after))
        done = await checked(host.to, words, timeout=RESTART_DEADLINE, what="putting the store back")
        older = hostdaemons.PUT_BACK in done.text
        try:
            await self._start_again(host, move, older=older)
        except FlotaError as error:
            if hostdaemons.TAKEN not in done.text:
                raise
            await host.at.switch(move.after, (move.daemon,))
            await self._restart(host, move)
            words_ = f"{move.after} has taken commands, and {move.before} can't read what they stored"
            raise WrongState(f"{words_} ({error.message}); {move.after} is started again") from error
        return ", with the store as it was before" if older else ""

    async def _takes_over(self, host: _Host, move: Move) -> bool:
        """The release before starts on what the newer one stored."""
        with contextlib.suppress(FlotaError):
            await host.at.switch(move.before, (move.daemon,))
            await self._restart(host, move)
            return True
        return False

    async def _start_again(self, host: _Host, move: Move, *, older: bool = False) -> None:
        await host.at.switch(move.before, (move.daemon,))
        if older:
            words = changing(hostdaemons.in_place())
            await checked(host.to, words, timeout=RESTART_DEADLINE, what="restoring the store")
        await self._restart(host, move)
        await self._ready(host, move, move.before)

    async def _answered(self, release: str) -> bool:
        """A controller of that release takes commands, or did: what it has stored since counts, and hosts
        obey none that knows less."""
        if release in self._answering:
            return True
        try:
            return (await self._watch.look()).controller == release
        except FlotaError:
            return False

    async def _restart(self, host: _Host, move: Move, *, copy_for: str = "") -> None:
        if move.daemon == "agent":
            with contextlib.suppress(FlotaError):  # one that can't be asked finds nothing lost either
                await self._watch.expect_away(move.name, RESTART_DEADLINE)
        words = hostdaemons.restart(move.daemon, copy_for=copy_for)
        await checked(host.to, changing(words), timeout=RESTART_DEADLINE, what=f"starting the {move.daemon}")

    async def _ready(self, host: _Host, move: Move, release: str) -> None:
        """The fleet says that it runs that release. Raises DeadlineExceeded, with the daemon's last words."""
        end = time.monotonic() + self._patience
        while True:
            late = time.monotonic() > end
            missing = await self._missing(move, release)
            if not missing:
                return
            if late:
                said = await host.to.run(hostdaemons.last_words(move.daemon), timeout=WORDS_DEADLINE)
                raise DeadlineExceeded(
                    f"{host.to.host}: after {self._patience:g} s {missing}; the {move.daemon}'s last words: "
                    f"{said.text.strip()[-800:] or 'none'}"
                )
            await asyncio.sleep(self._look_every)

    async def _missing(self, move: Move, release: str) -> str:
        """What there is to wait for, in words."""
        try:
            now = await self._watch.look()
        except (Unavailable, CommandFailed) as error:
            return f"the controller does not answer ({error.message})"
        self._answering.add(now.controller)
        if move.daemon == "agent":
            node = now.nodes.get(move.name, NodeNow())
            if node.state == "ready" and node.release == release:
                return ""
            return f"{move.name} is {node.state or 'unknown'} with release {node.release or 'unknown'}"
        if now.controller != release:
            return f"the controller runs release {now.controller or 'unknown'}"
        was = {name for name, node in self._before.nodes.items() if node.state == "ready"}
        gone = sorted(name for name in was if now.nodes.get(name, NodeNow()).state != "ready")
        return f"{', '.join(gone[:5])} did not come back to it" if gone else ""

    async def _processes(self, name: str) -> Mapping[str, int]:
        try:
            return await self._watch.processes(name)
        except FlotaError:
            return {}  # no controller: nobody to compare with


def _changed(before: Mapping[str, int], after: Mapping[str, int]) -> list[str]:
    """Containers that have another process now. Those that came or went meanwhile are somebody's wish."""
    return sorted(ident[:12] for ident, pid in before.items() if after.get(ident, pid) != pid)
