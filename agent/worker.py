"""One instance's worker: asks `lifecycle` for the next step, has it done, journals, reports; until removed.

Invariants: one step at a time per instance; a record is in the journal before something exists that it alone
knows of (the intent before a creation, the pids before a start); whatever happens, an exit is folded in
exactly once. `story` keeps the last folds, for the message of what should never happen.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from agent import lifecycle, restart
from agent.probe import HealthState
from agent.record import Local, impossible, intends, timed
from agent.runtime.base import Created, Exit
from agent.steps import Action, InvalidTransition, Outcome, Step
from aio.clock import Clock
from aio.mailbox import Bell
from model.errors import CommandFailed, FlotaError, WrongState
from model.ids import InstanceId
from model.records import Desired, Instance
from model.status import Endpoint, Phase

log = logging.getLogger("flota.agent")
DEADLINES = {
    Step.ROOT: 3600.0,
    Step.CREATE: 60.0,
    Step.START: 30.0,
    Step.WIRE: 60.0,
    Step.LIMIT: 30.0,
    Step.PAUSE: 30.0,
    Step.RESUME: 30.0,
    Step.CLEAN: 60.0,
    Step.REMOVE: 300.0,
}
RETRIED = frozenset({Step.CLEAN, Step.REMOVE, Step.STOP, Step.WIRE, Step.LIMIT, Step.PAUSE, Step.RESUME})
"""Steps that nothing else can be done instead of when they fail."""
STORY = 32
"""Folds that are remembered."""


class Steps(Protocol):
    """What does the steps: `agent.actions.Actions`."""

    async def perform(
        self, action: Action, record: Local, want: Instance | None, ended: asyncio.Event
    ) -> Outcome: ...

    def watch(self, record: Local, created: Created, ring: Callable[[Exit], None]) -> Callable[[], None]: ...


class Keeper(Protocol):
    """Where records go: journal and reporter in one."""

    def keep(self, record: Local) -> asyncio.Future[None]:
        """Report it and journal it; the future is done when no crash of this process can lose it."""
        ...

    def forget(self, record: Local) -> asyncio.Future[None]: ...

    def happened(self, record: Local, want: Instance | None, action: str) -> None:
        """An event, in docker's word."""
        ...

    def moved(self, record: Local, want: Instance | None, endpoint: Endpoint, action: str) -> None:
        """It came on a network or left it: `connect`, `disconnect`."""
        ...


class Worker:
    def __init__(
        self,
        record: Local,
        want: Instance | None,
        *,
        steps: Steps,
        keeper: Keeper,
        clock: Clock,
        judged: Callable[[], bool] = lambda: False,
    ) -> None:
        """`judged`: somebody will say when other hosts know it."""
        self.record = record
        self.want = want
        self._steps = steps
        self._keeper = keeper
        self._clock = clock
        self._bell = Bell()
        self._readdressed = False
        self._exit: Exit | None = None
        self._ended = asyncio.Event()
        self._holders = 0
        self._departing = False
        self._admitted = False
        """The hosts that judge it know the addresses that it has."""
        self._admitted_by = 0.0
        self._judged = judged
        self._changed = asyncio.Event()
        self._scope: asyncio.Timeout | None = None
        self._doing: Action | None = None
        self._trying: tuple[Step, int] | None = None
        self._misses = 0
        """Failures in a row of what is tried."""
        self._unwatch: Callable[[], None] | None = None
        self.story: deque[str] = deque(maxlen=STORY)

    # -- from outside -------------------------------------------------------------------------------
    def wish(self, want: Instance | None) -> None:
        """The controller's wish changed. A long step that no longer serves it is cut short."""
        self.want = want
        doing = self._doing
        brief = doing is None or doing.step not in lifecycle.INTERRUPTIBLE or self._serves(doing)
        if self._scope is not None and not brief:
            self._scope.reschedule(asyncio.get_running_loop().time())
        self._bell.ring()

    def look_again(self) -> None:
        """What failed may work now."""
        self._bell.ring()

    def rewire(self) -> None:
        """Its endpoints may be others than it knows: the DHCP server gave one another address. A step under
        way may have read the old one, so it is told once that is over."""
        self._readdressed = True
        self._bell.ring()

    def departing(self) -> None:
        """No other host sends new connections to it any more."""
        self._departing = True
        self._bell.ring()

    def arrived(self) -> None:
        """The hosts that judge it know its addresses."""
        self._admitted, self._admitted_by = True, 0.0
        self._bell.ring()

    async def held(self, attempt: int = 0, deadline: float = 30.0) -> Local:
        """Have the process created, though not started, and wait until it is; for a client that attaches to
        this attempt or a later one. Raises WrongState when it ended or can't be made, or within `deadline`
        isn't."""
        self._holders += 1
        self._bell.ring()
        try:
            async with asyncio.timeout(deadline):
                while not self.record.live:
                    if self._gone_for_good(attempt):
                        raise self._why_over()
                    changed = self._changed
                    await changed.wait()
            return self.record
        except TimeoutError as error:
            raise WrongState(f"it was not created within {deadline:g} s") from error
        finally:
            self._holders -= 1

    def _why_over(self) -> FlotaError:
        """In the runtime's own words when it could not be made."""
        if self.record.phase is Phase.FAILED:
            return CommandFailed(self.record.message)
        return WrongState(f"it is {self.record.phase}: {self.record.message}")

    def killed(self) -> None:
        """A person has sent a signal that is to end it."""
        self._set(lifecycle.killed(self.record), "killed")
        self._keeper.keep(self.record)

    def probed(self, run: Created, state: HealthState | None) -> None:
        """Something new is known of this run's health; None: its ports are waited for no longer."""
        before = self.record
        if before.created != run or not before.running:
            return
        health = before.health if state is None else state
        self._set(lifecycle.probed(before, health, opening=before.opening and state is not None), "probed")
        self._keeper.keep(self.record)
        if health is not None and (before.health is None or before.health.status != health.status):
            self._keeper.happened(self.record, self.want, f"health_status: {health.status}")

    def _gone_for_good(self, attempt: int = 0) -> bool:
        """It ended, and the attempt that is wanted, or is about to be, will not be made."""
        wanted = max(attempt, self.want.attempt) if self.want is not None else 0
        return self.record.phase is Phase.REMOVED or (
            self.record.phase.ended and (self.want is None or self.record.attempt >= wanted)
        )

    async def over(self) -> Local:
        """Wait until the current run is over and its code known; for a client that is attached."""
        while self.record.live:
            changed = self._changed
            await changed.wait()
        return self.record

    # -- the loop -----------------------------------------------------------------------------------
    async def run(self) -> None:
        """Until the instance is removed."""
        try:
            if self.record.created is not None and self.record.live:
                self._watch(self.record.created)
            while True:
                self._take_exit()
                self._take_address()
                hold = bool(self._holders)
                action = lifecycle.next_action(
                    self.record,
                    self.want,
                    hold=hold,
                    now=self._clock.now(),
                    departing=self._departing,
                    admitted_by=self._admitted_by,
                )
                if action is None:
                    if self.record.phase is Phase.REMOVED:
                        await self._keeper.forget(self.record)
                        return
                    await self._bell.wait()
                elif action.step is Step.WAIT:
                    await self._bell.wait(max(0.0, action.until - self._clock.now()))
                else:
                    await self._do(action)
        finally:
            self._stop_watching()

    async def _do(self, action: Action) -> None:
        before = self.record
        self._set(lifecycle.begun(before, action), f"begin {action.step}: {action.why}")
        written = self._keeper.keep(self.record) if self.record != before else None
        intent = written if intends(before, self.record) else None
        self._doing = action
        if action.step is Step.PREPARE:
            self._admitted = False
        outcome = self._counted(action, await self._performed(action, intent))
        self._doing = None
        folded = lifecycle.after(self.record, self.want, action, outcome, self._clock.now())
        self._set(
            folded, f"end {action.step}: {outcome.error or ('cut short' if outcome.interrupted else 'done')}"
        )
        if self.record.created is None:
            self._stop_watching()
        elif outcome.created is not None:
            self._watch(outcome.created)
            waits = self._judged() and not self._admitted
            self._admitted_by = self._clock.now() + lifecycle.ADMISSION if waits else 0.0
        if self.record.phase is not Phase.REMOVED:
            written = self._keeper.keep(self.record)
            if outcome.created is not None:
                await self._made_durable(written, action)
        self._tell(action, outcome)
        self._tell_moves(before)
        if outcome.error:
            log.warning("%s: %s: %s", self.record.instance[:12], action.step, outcome.error)
            if action.step in RETRIED:
                await self._bell.wait(restart.again(self._misses))

    def _counted(self, action: Action, outcome: Outcome) -> Outcome:
        """Says when a step that failed is tried again. Another wish starts the count anew."""
        trying = action.step, action.revision
        before = self._misses if trying == self._trying else 0
        self._trying, self._misses = trying, before + 1 if outcome.error else 0
        if not outcome.error or action.step is not Step.WIRE:
            return outcome
        again = f"{outcome.error}; it is tried again in {restart.again(self._misses):g} s"
        return msgspec.structs.replace(outcome, error=again)

    async def _made_durable(self, written: asyncio.Future[None], action: Action) -> None:
        """A process that the journal does not know must not be let go: the next agent would take it away."""
        try:
            await written
        except FlotaError as error:
            failed = lifecycle.after(
                self.record, self.want, action, Outcome(error=str(error)), self._clock.now()
            )
            self._set(failed, f"journal: {error}")

    async def _performed(self, action: Action, intent: asyncio.Future[None] | None) -> Outcome:
        """Do it, once the intent is durable. Whatever goes wrong is the outcome."""
        try:
            async with asyncio.timeout(DEADLINES.get(action.step)) as scope:
                self._scope = scope
                if intent is not None:
                    await intent
                return await self._steps.perform(action, self.record, self.want, self._ended)
        except TimeoutError:
            if action.step in lifecycle.INTERRUPTIBLE and not self._serves(action):
                return Outcome(interrupted=True)
            return Outcome(error=f"{action.step} did not end within {DEADLINES.get(action.step, 0):g} s")
        except FlotaError as error:
            return Outcome(error=str(error))
        except OSError as error:
            return Outcome(error=f"{action.step}: {error}")
        finally:
            self._scope = None

    def _serves(self, doing: Action) -> bool:
        """True while the step under way is what would be done next anyhow."""
        hold = bool(self._holders)
        wanted = lifecycle.next_action(self.record, self.want, hold=hold, now=self._clock.now())
        if wanted is None:
            return False
        return (wanted.step, wanted.force, wanted.grace) == (doing.step, doing.force, doing.grace)

    # -- the process's end --------------------------------------------------------------------------
    def _watch(self, created: Created) -> None:
        self._stop_watching()
        self._exit = None
        self._ended = asyncio.Event()
        self._unwatch = self._steps.watch(self.record, created, self._rung)

    def _stop_watching(self) -> None:
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None

    def _rung(self, exit_: Exit) -> None:
        self._exit = exit_
        self._ended.set()
        self._bell.ring()

    def _take_exit(self) -> None:
        if self._exit is None:
            return
        exit_, self._exit = self._exit, None
        if not self.record.live:
            return
        ran = self.record.started
        self._set(lifecycle.exited(self.record, exit_, self._clock.now()), f"exit {exit_.code}")
        self._keeper.keep(self.record)
        if ran and exit_.oom_killed:
            self._keeper.happened(self.record, self.want, "oom")
        if ran:
            self._keeper.happened(self.record, self.want, "die")

    def _take_address(self) -> None:
        if self._readdressed:
            self._readdressed = False
            self._set(lifecycle.readdressed(self.record), "another address")
            self._keeper.keep(self.record)

    def _set(self, record: Local, event: str) -> None:
        self.story.append(f"{event} → {record.phase}")
        problem = impossible(record)
        if problem:
            raise InvalidTransition(f"{record.instance[:12]}: {problem}; {'; '.join(self.story)}")
        self.record = timed(record, self._clock.now())
        self._changed.set()
        self._changed = asyncio.Event()

    def _tell_moves(self, before: Local) -> None:
        was = {endpoint.network: endpoint for endpoint in before.endpoints}
        now = {endpoint.network: endpoint for endpoint in self.record.endpoints}
        for network, endpoint in was.items():
            if network not in now:
                self._keeper.moved(self.record, self.want, endpoint, "disconnect")
        for network, endpoint in now.items():
            if network not in was:
                self._keeper.moved(self.record, self.want, endpoint, "connect")

    def _tell(self, action: Action, outcome: Outcome) -> None:
        if outcome.error or outcome.interrupted:
            return
        words = {
            Step.START: "start",
            Step.STOP: "stop",
            Step.PAUSE: "pause",
            Step.RESUME: "unpause",
        }
        wanted_stop = self.want is not None and self.want.desired is not Desired.REMOVED
        if action.step in words and (action.step is not Step.STOP or wanted_stop):
            self._keeper.happened(self.record, self.want, words[action.step])


def fresh(instance: Instance, now: float) -> Local:
    """The record of an instance that this host has not seen before."""
    return msgspec.structs.replace(Local(instance=instance.id), created_at=now)


def rewire(workers: Mapping[InstanceId, Worker], instance: InstanceId) -> None:
    if instance in workers:
        workers[instance].rewire()
