"""The life of an instance on its host: what to do next, and what follows from how it went. Pure.

`next_action` compares what is wanted with what there is and names one step; `begun` and `after` fold the
step's start and outcome into the record; `exited` folds in the end of the process. There is no other path:
start-up, crash and cancel all come back through `next_action`. Every step is idempotent, so doing one again
after a crash is right. `recovered` turns a journalled record into one that is true in this boot.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from agent import restart
from agent.record import Local
from agent.runtime.base import Created, Exit
from model.records import Desired, Instance
from model.spec import Struct
from model.status import BoundPort, Endpoint, Phase

replace = msgspec.structs.replace


class Step(StrEnum):
    ROOT = "root"
    """Image on the host, writable layer made."""
    PREPARE = "prepare"
    """Root mounted, volumes, network namespace, endpoints, published ports."""
    CREATE = "create"
    """Its process exists and is held."""
    START = "start"
    STOP = "stop"
    """Signal, grace, kill; done when the process is over."""
    PAUSE = "pause"
    RESUME = "resume"
    CLEAN = "clean"
    """All but the root and the log is taken away."""
    REMOVE = "remove"
    """Nothing is left."""
    SETTLE = "settle"
    """It will not start again by itself; there is nothing to do."""
    WAIT = "wait"
    """Until `Action.until`."""


class Action(Struct):
    step: Step
    why: str
    force: bool = False
    """STOP without grace."""
    until: float = 0.0


class Outcome(Struct):
    """What a step gave. `error` set: it failed, in these words; `interrupted`: the wish changed meanwhile."""

    error: str = ""
    interrupted: bool = False
    image_id: str = ""
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[BoundPort, ...] = ()
    volumes: tuple[tuple[str, str], ...] = ()
    anonymous: tuple[str, ...] = ()
    created: Created | None = None
    boot_id: str = ""
    """With `created`: the boot in which it is true."""


INTERRUPTIBLE = frozenset({Step.ROOT, Step.PREPARE, Step.STOP, Step.WAIT})
"""A changed wish may cut these short; the others are brief."""


def next_action(record: Local, want: Instance | None, *, hold: bool, now: float) -> Action | None:
    """The next step, or None when all is as it should be. `hold`: somebody waits to attach before the start.
    `want` None: the instance is no longer assigned to this host, which means the same as removed."""
    if record.phase is Phase.REMOVED:
        return None
    if want is None or want.desired is Desired.REMOVED:
        return _towards_removed(record, want)
    if record.ended or (record.making and not record.live and record.phase is Phase.FAILED):
        return Action(step=Step.CLEAN, why="its process is over")
    if _leaves_by_itself(record, want):
        return Action(step=Step.REMOVE, why="it is to be removed when it ends")
    match want.desired:
        case Desired.STOPPED:
            return _towards_stopped(record)
        case Desired.CREATED:
            return _towards_created(record, hold=hold)
        case _:
            return _towards_running(record, want, now)


def _towards_removed(record: Local, want: Instance | None) -> Action:
    why = want.reason if want is not None and want.reason else "it is removed"
    if record.live:
        return Action(step=Step.STOP, why=why, force=want is not None and want.force)
    if record.making:
        return Action(step=Step.CLEAN, why=why)
    return Action(step=Step.REMOVE, why=why)


def _towards_stopped(record: Local) -> Action | None:
    why = "it was asked to stop"
    if record.live:
        return Action(step=Step.STOP, why=why)
    if record.making:
        return Action(step=Step.CLEAN, why=why)
    return Action(step=Step.SETTLE, why=why) if record.phase is Phase.RESTARTING else None


def _leaves_by_itself(record: Local, want: Instance) -> bool:
    over = record.phase in (Phase.EXITED, Phase.FAILED)
    return want.spec.auto_remove and over and not record.live and record.attempt >= want.attempt


def _towards_created(record: Local, *, hold: bool) -> Action | None:
    if record.live or record.phase in (Phase.EXITED, Phase.FAILED):
        return None
    if not record.rooted:
        return Action(step=Step.ROOT, why="it was created")
    return _make(record, "a client waits to attach") if hold else None


def _towards_running(record: Local, want: Instance, now: float) -> Action | None:
    if record.running:
        if record.attempt < want.attempt:
            return Action(step=Step.STOP, why="it is restarted")
        if (want.desired is Desired.PAUSED) is not record.paused:
            return Action(step=Step.RESUME if record.paused else Step.PAUSE, why="it was asked to")
        return None
    if record.live:
        return Action(step=Step.START, why="it is to run")
    if record.attempt < want.attempt:
        return _make(record, want.reason or "it is to run")
    if record.phase is Phase.RESTARTING:
        if now < record.retry_at:
            return Action(step=Step.WAIT, why=record.message, until=record.retry_at)
        return _make(record, "its restart policy starts it again")
    return None if record.phase in (Phase.EXITED, Phase.FAILED) else _make(record, "its start was cut short")


def _make(record: Local, why: str) -> Action:
    if not record.rooted:
        return Action(step=Step.ROOT, why=why)
    if record.phase is Phase.STARTING:
        return Action(step=Step.CREATE, why=why)
    return Action(step=Step.PREPARE, why=why)


def begun(record: Local, action: Action) -> Local:
    """The record while the step is under way; journalled before it, where `making` becomes true."""
    match action.step:
        case Step.ROOT:
            return replace(record, phase=Phase.PULLING, message="")
        case Step.PREPARE:
            return replace(record, phase=Phase.PREPARING, making=True, message="", exit_code=None)
        case Step.STOP:
            return replace(record, phase=Phase.STOPPING, message=action.why)
        case _:
            return record


def after(record: Local, want: Instance | None, action: Action, outcome: Outcome, now: float) -> Local:
    """The record once the step is over."""
    if outcome.interrupted:
        return record
    if outcome.error:
        return _failed(record, want, action, outcome.error, now)
    match action.step:
        case Step.ROOT:
            made = {"created_at": record.created_at or now, "image_id": outcome.image_id}
            return replace(record, rooted=True, phase=Phase.CREATED, **made)
        case Step.PREPARE:
            given = {"endpoints": outcome.endpoints, "ports": outcome.ports, "volumes": outcome.volumes}
            return replace(record, phase=Phase.STARTING, anonymous=outcome.anonymous, **given)
        case Step.CREATE:
            held = {"created": outcome.created, "boot_id": outcome.boot_id}
            return replace(record, **held, started=False, ended=False, phase=Phase.CREATED)
        case Step.START:
            return _started(record, want, now)
        case Step.PAUSE | Step.RESUME:
            return replace(record, paused=action.step is Step.PAUSE)
        case Step.CLEAN:
            return _cleaned(record, want, now)
        case Step.SETTLE:
            return replace(record, phase=Phase.EXITED, message=action.why)
        case Step.REMOVE:
            return replace(record, phase=Phase.REMOVED, rooted=False, message=record.message or action.why)
        case _:
            return record


def exited(record: Local, exit_: Exit, now: float) -> Local:
    """The process is over, whatever was under way."""
    return replace(
        record,
        ended=True,
        started=record.started,
        paused=False,
        exit_code=exit_.code,
        oom_killed=exit_.oom_killed,
        finished_at=exit_.at or now,
        message=_ending(exit_),
    )


def recovered(record: Local, *, boot_id: str, runs: bool | None, now: float) -> Local:
    """A record read from the journal. `runs`: whether the runtime says that its process runs (None: it knows
    nothing of it). In another boot nothing of it can live; a creation that was cut short is undone."""
    if record.created is not None and not record.ended:
        if record.boot_id != boot_id:
            lost = replace(exited(record, Exit(code=None, at=now), now), message="its host was restarted")
            return replace(lost, created=None)
        if runs and not record.started:
            return replace(record, started=True, phase=Phase.RUNNING, started_at=now)
        return record
    if record.making and record.created is None and not record.ended:
        return replace(record, ended=True, message="its start was cut short", phase=Phase.ASSIGNED)
    return record


def _started(record: Local, want: Instance | None, now: float) -> Local:
    attempt = want.attempt if want is not None else record.attempt
    again = record.attempt == attempt
    return replace(
        record,
        attempt=attempt,
        started=True,
        phase=Phase.RUNNING,
        started_at=now,
        finished_at=0.0,
        oom_killed=False,
        restarts=record.restarts + 1 if again else 0,
        failures=record.failures if again else 0,
        message="",
    )


def _failed(record: Local, want: Instance | None, action: Action, error: str, now: float) -> Local:
    if action.step in (Step.STOP, Step.PAUSE, Step.RESUME):
        return replace(record, message=error, phase=Phase.RUNNING if record.started else record.phase)
    if action.step in (Step.CLEAN, Step.REMOVE):
        return replace(record, message=error)
    attempt = want.attempt if want is not None else record.attempt
    return replace(
        record,
        attempt=attempt,
        phase=Phase.FAILED,
        message=error,
        finished_at=now,
        ended=record.created is not None,
        exit_code=_exit_code_of(error, action.step),
    )


def _cleaned(record: Local, want: Instance | None, now: float) -> Local:
    """Nothing but root and log is left; the restart policy decides what follows."""
    ran = record.started
    bare = replace(record, making=False, created=None, ended=False, started=False, endpoints=(), ports=())
    if record.phase is Phase.FAILED:
        return bare
    if not ran:
        return replace(bare, phase=Phase.CREATED if bare.rooted else Phase.ASSIGNED)
    over = replace(bare, phase=Phase.EXITED)
    if want is None or want.desired not in (Desired.RUNNING, Desired.PAUSED) or record.attempt < want.attempt:
        return over
    if not restart.wanted(want.spec.restart, exit_code=record.exit_code, restarts=record.restarts):
        return over
    count, seconds = restart.wait(
        want.spec.restart, failures=record.failures, ran_for=record.finished_at - record.started_at
    )
    message = f"{record.message}; starts again in {seconds:.3g} s"
    return replace(over, phase=Phase.RESTARTING, failures=count, retry_at=now + seconds, message=message)


def _ending(exit_: Exit) -> str:
    if exit_.oom_killed:
        return "killed: it used more memory than its limit"
    if exit_.code is None:
        return "ended; its exit code is unknown"
    return f"exited with code {exit_.code}"


def _exit_code_of(error: str, step: Step) -> int | None:
    """Docker's: 127 for a program that is not there, 126 for one that can't be run."""
    if step not in (Step.CREATE, Step.START):
        return None
    lowered = error.lower()
    if "not found" in lowered or "no such file or directory" in lowered:
        return 127
    return 126 if "permission denied" in lowered or "is a directory" in lowered else 128
