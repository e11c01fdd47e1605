"""The life of an instance on its host: what to do next, and what follows from how it went. Pure.

`next_action` compares what is wanted with what there is and names one step; `begun` and `after` fold the
step's start and outcome into the record; `exited` folds in the end of the process. There is no other path:
start-up, crash and cancel all come back through `next_action`. Every step is idempotent, so doing one again
after a crash is right. `recovered` turns a journalled record into one that is true in this boot; a
worker asks `record.impossible` after each fold.
"""

from __future__ import annotations

import msgspec

from agent import restart
from agent.probe import NONE, HealthState, Watch
from agent.record import Local
from agent.runtime.base import Exit
from agent.steps import Action, Outcome, Step
from model.records import Desired, Instance
from model.status import Phase, start_failure_code
from net.host import PREDEFINED_BRIDGE

replace = msgspec.structs.replace


PATIENCE = 5.0
"""Seconds for which the other hosts' word is waited for before an instance drains."""
ADMISSION = 1.0
"""Seconds for which a start waits at most for the hosts that judge it: TCP tries again after as long."""
INTERRUPTIBLE = frozenset({Step.ROOT, Step.PREPARE, Step.STOP, Step.WAIT})
"""A changed wish may cut these short; the others are brief."""


def next_action(
    record: Local,
    want: Instance | None,
    *,
    hold: bool,
    now: float,
    departing: bool = True,
    admitted_by: float = 0.0,
) -> Action | None:
    """The next step, or None when all is as it should be. `hold`: somebody waits to attach before the start.
    `departing`: no other host sends it new connections. `admitted_by`: until then the hosts that judge it may
    not know it. `want` None: the instance is no longer assigned to
    this host, which means the same as removed."""
    if record.phase is Phase.REMOVED:
        return None
    if want is None or want.desired is Desired.REMOVED:
        return _towards_removed(record, want, now, departing)
    if record.ended or (record.making and not record.live and record.phase is Phase.FAILED):
        return Action(step=Step.CLEAN, why="its process is over" if record.started else "it was not started")
    if _leaves_by_itself(record, want):
        return Action(step=Step.REMOVE, why="it is to be removed when it ends")
    match want.desired:
        case Desired.STOPPED:
            return _towards_stopped(record, want)
        case Desired.CREATED:
            return _towards_created(record, want, hold=hold)
        case _:
            return _towards_running(record, want, now, admitted_by)


def _towards_removed(record: Local, want: Instance | None, now: float, departing: bool) -> Action:
    why = want.reason if want is not None and want.reason else "it is removed"
    if want is not None and (drain := _drained(record, want, why, now, departing)) is not None:
        return drain
    if record.live:
        return _stop(record, want, why, force=want is not None and want.force)
    if record.making:
        return Action(step=Step.CLEAN, why=why)
    return Action(step=Step.REMOVE, why=why)


def _towards_stopped(record: Local, want: Instance) -> Action | None:
    why = "it was asked to stop"
    if record.live:
        return _stop(record, want, why)
    if record.making:
        return Action(step=Step.CLEAN, why=why)
    return Action(step=Step.SETTLE, why=why) if record.phase in _UNSETTLED else None


def _drained(record: Local, want: Instance, why: str, now: float, departing: bool) -> Action | None:
    """A service's instance is told to stop only some time after nothing new is sent to it: from the wish on
    all hosts leave it out, and that time begins when they have said so, or are not waited for any longer.
    None when it is over, or there is none."""
    served = want.service is not None and any(e.network != PREDEFINED_BRIDGE for e in record.endpoints)
    if not served or not record.running or want.force or want.spec.drain <= 0:
        return None
    longest = want.spec.drain + (0.0 if departing else PATIENCE)
    if not record.drained_at:
        return Action(step=Step.DRAIN, why=why, until=now + longest, departing=departing)
    if departing and not record.departing:
        until = min(record.drained_at, now + longest)
        return Action(step=Step.DRAIN, why=why, until=until, departing=True)
    if 0 < record.drained_at - now <= want.spec.drain + PATIENCE:
        return Action(step=Step.WAIT, why=why, until=record.drained_at)
    return None


def _stop(record: Local, want: Instance | None, why: str, *, force: bool = False) -> Action:
    """One that was never let go has nothing to finish: no grace."""
    grace = want.stop_grace if want is not None else None
    return Action(step=Step.STOP, why=why, force=force or not record.started, grace=grace)


def _leaves_by_itself(record: Local, want: Instance) -> bool:
    """One that was only created stays, also where that failed: whoever made it is yet to be told why."""
    if want.desired is Desired.CREATED:
        return False
    over = record.phase in (Phase.EXITED, Phase.FAILED)
    return want.spec.auto_remove and over and not record.live and record.attempt >= want.attempt


def _towards_created(record: Local, want: Instance, *, hold: bool) -> Action | None:
    if record.live:
        return None
    if record.phase in (Phase.EXITED, Phase.FAILED):
        again = hold and record.attempt < want.attempt
        return _make(record, want, "a client waits to attach") if again else None
    if not record.rooted:
        return _make(record, want, "it was created")
    return _make(record, want, "a client waits to attach") if hold else None


def _towards_running(record: Local, want: Instance, now: float, admitted_by: float) -> Action | None:
    if record.running and record.attempt < want.attempt:
        return _stop(record, want, "it is restarted")
    if record.live and _wired_otherwise(record, want):
        return Action(step=Step.WIRE, why="its networks or ports were changed", revision=want.revision)
    if record.live and _limited_otherwise(record, want):
        return Action(step=Step.LIMIT, why="its limits were changed", revision=want.revision)
    if record.running:
        frozen = want.desired is Desired.PAUSED
        if frozen is not record.paused or record.switching:
            return Action(step=Step.PAUSE if frozen else Step.RESUME, why="it was asked to")
        return None
    if record.live and 0 < admitted_by - now <= ADMISSION:
        return Action(step=Step.WAIT, why="hosts that judge it are told of it", until=admitted_by)
    if record.live:
        return Action(step=Step.START, why="it is to run")
    if record.attempt < want.attempt:
        return _make(record, want, want.reason or "it is to run")
    if record.phase is Phase.RESTARTING:
        # A deadline further off than any back-off means that the wall clock went back meanwhile.
        if 0 < record.retry_at - now <= want.spec.restart.max_delay:
            return Action(step=Step.WAIT, why=record.message, until=record.retry_at)
        return _make(record, want, "its restart policy starts it again")
    return None if record.phase in (Phase.EXITED, Phase.FAILED) else _make(record, want, "it is to run")


def _limited_otherwise(record: Local, want: Instance) -> bool:
    """Of what an older agent made nobody knows the limits: they are those of the wish until another says."""
    return record.limiting or (record.limits is not None and record.limits != want.spec.resources)


def _wired_otherwise(record: Local, want: Instance) -> bool:
    """Whether its endpoints or ports are not (surely) those that are wanted now."""
    if record.rewiring:
        return True
    if record.attached is None or record.published is None:
        return {e.network for e in record.endpoints} != {a.network for a in want.attachments}
    return record.attached != want.attachments or record.published != want.spec.ports


def _make(record: Local, want: Instance, why: str) -> Action:
    if record.prepared:
        return Action(step=Step.CREATE, why=why)
    step = Step.PREPARE if record.rooted else Step.ROOT
    return Action(step=step, why=why, attempt=want.attempt)


def begun(record: Local, action: Action) -> Local:
    """The record while the step is under way; journalled before it, where `making` becomes true."""
    match action.step:
        case Step.ROOT:
            return replace(_attempted(record, action.attempt), phase=Phase.PULLING, message="")
        case Step.PREPARE:
            phase = record.phase if record.phase is Phase.CREATED else Phase.PREPARING
            fresh = replace(_attempted(record, action.attempt), phase=phase, making=True, killed=False)
            return replace(fresh, message="", exit_code=None, oom_killed=False, finished_at=0.0)
        case Step.START:
            return replace(record, phase=Phase.STARTING, message="")
        case Step.WIRE:
            return replace(record, rewiring=True, wired_for=action.revision, message="")
        case Step.LIMIT:
            return replace(record, limiting=True, limited_for=action.revision, message="")
        case Step.PAUSE | Step.RESUME:
            return replace(record, switching=True)
        case Step.DRAIN:
            return replace(record, drained_at=action.until, departing=action.departing)
        case Step.STOP:
            return replace(record, phase=Phase.STOPPING, message=action.why)
        case _:
            return record


def _attempted(record: Local, attempt: int) -> Local:
    """A start that people asked for begins: what counted towards the restart policy starts at nothing."""
    if record.attempt >= attempt:
        return record
    return replace(record, attempt=attempt, restarts=0, failures=0, retry_at=0.0)


def after(record: Local, want: Instance | None, action: Action, outcome: Outcome, now: float) -> Local:
    """The record once the step is over."""
    if outcome.interrupted:
        return record
    if outcome.error:
        return _failed(record, action, outcome.error, now)
    match action.step:
        case Step.ROOT:
            held = want is not None and want.desired is Desired.CREATED
            made = {"created_at": record.created_at or now, "image_id": outcome.image_id}
            return replace(record, rooted=True, phase=Phase.CREATED if held else Phase.PREPARING, **made)
        case Step.PREPARE:
            kept = {"anonymous": outcome.anonymous, "volumes": outcome.volumes}
            return replace(_wired(record, outcome), prepared=True, **kept)
        case Step.WIRE:
            return _wired(record, outcome)
        case Step.LIMIT:
            return replace(record, limits=outcome.limits, limiting=False)
        case Step.CREATE:
            held_by = {"created": outcome.created, "boot_id": outcome.boot_id, "limits": outcome.limits}
            return replace(record, **held_by, limiting=False, started=False, ended=False, phase=Phase.CREATED)
        case Step.START:
            return _let_go(record, outcome.watch, now)
        case Step.PAUSE | Step.RESUME:
            return replace(record, paused=action.step is Step.PAUSE, switching=False)
        case Step.CLEAN:
            return _cleaned(record, want, now)
        case Step.SETTLE:
            return _settled(record, action)
        case Step.REMOVE:
            return replace(record, phase=Phase.REMOVED, rooted=False, message=record.message or action.why)
        case _:
            return record


def _let_go(record: Local, watch: Watch, now: float) -> Local:
    began = {"started": True, "phase": Phase.RUNNING, "started_at": now, "message": ""}
    began |= {"drained_at": 0.0, "departing": False}
    return replace(record, **began, health=watch.first, opening=bool(watch.ports))


def _wired(record: Local, outcome: Outcome) -> Local:
    made = {"attached": outcome.attached, "published": outcome.published}
    return replace(record, endpoints=outcome.endpoints, ports=outcome.ports, rewiring=False, **made)


def exited(record: Local, exit_: Exit, now: float) -> Local:
    """The process is over, whatever was under way. Of a record that waits for no process it changes
    nothing: an exit counts once."""
    if not record.live:
        return record
    if not record.started:
        return replace(record, ended=True)
    return replace(
        record,
        ended=True,
        phase=Phase.STOPPING,
        paused=False,
        switching=False,
        exit_code=exit_.code,
        oom_killed=exit_.oom_killed,
        finished_at=exit_.at or now,
        message=_ending(exit_),
    )


def recovered(record: Local, *, boot_id: str, released: bool, now: float, watch: Watch = NONE) -> Local:
    """A record read from the journal. `released`: its process was let go, by what the last agent left and
    the runtime says; `watch` is then what START would have said. In another boot nothing of it can live; a
    creation that was cut short is undone."""
    if record.live:
        if record.boot_id != boot_id:
            lost = replace(exited(record, Exit(code=None, at=now), now), created=None)
            return replace(lost, message="its host was restarted") if record.started else lost
        if released and not record.started:
            return _let_go(record, watch, now)
        return record
    if record.making and record.created is None and not record.ended:
        return replace(record, ended=True)
    return record


def killed(record: Local) -> Local:
    """A person ended it by a signal: as in Docker, its restart policy does not start it again."""
    return replace(record, killed=True) if record.running else record


def probed(record: Local, state: HealthState | None, *, opening: bool) -> Local:
    """What was found out about the run that is under way. Of one that is over nothing is."""
    return replace(record, health=state, opening=opening) if record.running else record


def readdressed(record: Local) -> Local:
    """Its endpoints may have other addresses than those that are known."""
    return replace(record, rewiring=True) if record.making and record.endpoints else record


def watched(record: Local, want: Instance | None) -> bool:
    """Whether its health matters: it runs and should."""
    wanted = want is not None and want.desired is Desired.RUNNING
    return wanted and record.running and record.phase is Phase.RUNNING and not record.paused


_UNSETTLED = frozenset({Phase.PULLING, Phase.PREPARING, Phase.RESTARTING, Phase.STARTING, Phase.STOPPING})
"""Phases in which nobody can be left who was asked to stop."""


def _settled(record: Local, action: Action) -> Local:
    if record.phase is Phase.RESTARTING:
        return replace(record, phase=Phase.EXITED, message=action.why, retry_at=0.0)
    return replace(record, phase=Phase.CREATED if record.rooted else Phase.ASSIGNED, message=action.why)


def _failed(record: Local, action: Action, error: str, now: float) -> Local:
    if action.step in (Step.STOP, Step.WIRE, Step.LIMIT, Step.PAUSE, Step.RESUME):
        return replace(record, message=error, phase=Phase.RUNNING if record.started else record.phase)
    if action.step in (Step.CLEAN, Step.REMOVE):
        return replace(record, message=error)
    return replace(
        record,
        phase=Phase.FAILED,
        message=error,
        finished_at=now,
        ended=record.created is not None,
        exit_code=_exit_code_of(error, action.step),
    )


def _cleaned(record: Local, want: Instance | None, now: float) -> Local:
    """Nothing but root and log is left; the restart policy decides what follows."""
    gone = {"making": False, "prepared": False, "created": None, "ended": False, "started": False}
    unwired = {"endpoints": (), "ports": (), "attached": None, "published": None, "rewiring": False}
    bare = replace(record, **gone, **unwired, paused=False, switching=False)
    if record.phase is Phase.FAILED:
        # A first start that fails is the user's to mend; one that the policy made is tried again.
        over = bare
        again = record.failures > 0
    elif record.started:
        over = replace(bare, phase=Phase.EXITED)
        again = not record.killed
    else:
        return replace(bare, phase=Phase.CREATED if bare.rooted else Phase.ASSIGNED, message="")
    if not again or want is None or want.desired not in (Desired.RUNNING, Desired.PAUSED):
        return over
    if record.attempt < want.attempt:
        return over
    if not restart.wanted(want.spec.restart, exit_code=record.exit_code, restarts=record.restarts):
        return over
    ran_for = record.finished_at - record.started_at if record.started else 0.0
    count, seconds = restart.wait(want.spec.restart, failures=record.failures, ran_for=ran_for)
    return replace(
        over,
        phase=Phase.RESTARTING,
        restarts=record.restarts + 1,
        failures=count,
        retry_at=now + seconds,
        message=f"{record.message}; starts again in {seconds:.3g} s",
    )


def _ending(exit_: Exit) -> str:
    if exit_.oom_killed:
        return "killed: it used more memory than its limit"
    if exit_.code is None:
        return "ended; its exit code is unknown"
    return f"exited with code {exit_.code}"


def _exit_code_of(error: str, step: Step) -> int | None:
    return start_failure_code(error) if step in (Step.CREATE, Step.START) else None
