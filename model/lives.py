"""What a plain container is to be, once a person has said start, stop, restart, pause, remove, rename. Pure.

Each gives the record as it is to be, equal to what it was where nothing is to be done, or raises and changes
nothing. Whoever keeps the record has these rules in common: the fleet's controller, a host of its own.
"""

from __future__ import annotations

from msgspec.structs import asdict, replace

from model.api import StopRequest
from model.errors import InvalidInput, WrongState
from model.limits import UpdateLimits
from model.records import Desired, Instance
from model.running import may_run
from model.status import InstanceStatus, Phase
from model.validate import validate_container, validate_name, validate_placement


def started(instance: Instance, status: InstanceStatus | None, *, hold: bool = False) -> Instance:
    """Run it; one that has ended gets a new attempt. One that runs already stays as it is. `hold`: one that
    has ended is as if it were only created, until it is started without."""
    _check_kept(instance)
    if instance.desired is Desired.PAUSED:
        raise WrongState(f"container {instance.name} is paused", hint=f"flota unpause {instance.name}")
    over = status is not None and status.phase.ended and status.attempt >= instance.attempt
    if instance.desired is Desired.RUNNING and not over:
        return instance
    again = over or instance.desired is Desired.STOPPED
    if hold:
        held = replace(
            instance, desired=Desired.CREATED, attempt=instance.attempt + 1, reason="a client attaches"
        )
        return held if again else instance
    return replace(
        instance,
        desired=Desired.RUNNING,
        attempt=instance.attempt + again,
        reason="started by hand",
    )


def stopped(instance: Instance, request: StopRequest) -> Instance:
    """Stop it; stopping what is stopped changes nothing."""
    _check_kept(instance)
    if instance.desired in (Desired.STOPPED, Desired.CREATED):
        return instance
    _check_grace(request)
    return replace(
        instance,
        desired=Desired.STOPPED,
        stop_signal=request.signal,
        stop_grace=request.grace,
        reason="stopped by hand",
    )


def restarted(instance: Instance, request: StopRequest) -> Instance:
    """A new attempt: its host ends the present one first."""
    _check_kept(instance)
    _check_grace(request)
    return replace(
        instance,
        desired=Desired.RUNNING,
        attempt=instance.attempt + (instance.desired is not Desired.CREATED),
        stop_signal=request.signal,
        stop_grace=request.grace,
        reason="restarted by hand",
    )


def paused(instance: Instance, status: InstanceStatus | None, *, to: bool) -> Instance:
    """Freeze (`to`) or thaw a running container."""
    _check_kept(instance)
    if to and instance.desired is Desired.PAUSED:
        raise WrongState(f"container {instance.name} is paused already")
    if not to and instance.desired is not Desired.PAUSED:
        raise WrongState(f"container {instance.name} is not paused")
    if to and (
        instance.desired is not Desired.RUNNING or status is None or status.phase is not Phase.RUNNING
    ):
        raise WrongState(f"container {instance.name} is not running")
    verb = "paused" if to else "unpaused"
    return replace(instance, desired=Desired.PAUSED if to else Desired.RUNNING, reason=f"{verb} by hand")


def removed(instance: Instance, status: InstanceStatus | None, *, force: bool, volumes: bool) -> Instance:
    """Remove it; one that may run needs `force`."""
    if instance.desired is Desired.REMOVED:
        if not force or instance.force:
            return instance
    elif not force and may_run(instance, status):
        raise WrongState(
            f"container {instance.name} is running",
            hint=f"Stop it first, or `flota rm -f {instance.name}`",
        )
    return replace(
        instance,
        desired=Desired.REMOVED,
        idle=instance.idle or instance.desired is Desired.STOPPED,
        force=force,
        remove_volumes=volumes,
        reason="removed by hand",
    )


def renamed(instance: Instance, name: str) -> Instance:
    """Whether the name is free is its keeper's to say."""
    _check_kept(instance)
    problems = validate_name("container", name, "name")
    if problems:
        raise InvalidInput.of("invalid name", tuple(problems))
    if name == instance.name:
        raise InvalidInput(f"container {name} has this name already")
    return replace(instance, name=name)


def limited(instance: Instance, request: UpdateLimits) -> Instance:
    """What is not changed is not judged again: it may be of before a rule."""
    _check_kept(instance)
    given = {name: value for name, value in asdict(request).items() if value is not None}
    restart = given.pop("restart", instance.spec.restart)
    limits = replace(instance.spec.resources, **given)
    spec = replace(instance.spec, resources=limits, restart=restart)
    problems = [
        *(p for p in validate_container(spec) if p.path.startswith(("spec.resources", "spec.restart"))),
        *validate_placement(instance.placement, spec, "placement"),
    ]
    if problems:
        raise InvalidInput.of("invalid limits", tuple(problems))
    return replace(instance, spec=spec)


def present(instance: Instance, reported: InstanceStatus | None) -> InstanceStatus:
    """What it is now, on a host that is there: a report of an earlier attempt says nothing about this one."""
    if reported is None:
        return made_up(instance, Phase.ASSIGNED, "waiting for its host to report")
    if reported.attempt < instance.attempt and instance.desired is Desired.RUNNING:
        return made_up(instance, Phase.ASSIGNED, "to be started")
    return reported


def made_up(instance: Instance, phase: Phase, message: str) -> InstanceStatus:
    """Of one of which nothing is reported."""
    return InstanceStatus(
        instance=instance.id,
        attempt=instance.attempt,
        phase=phase,
        message=message,
        created_at=instance.created_at,
    )


def _check_kept(instance: Instance) -> None:
    if instance.desired is Desired.REMOVED:
        raise WrongState(f"container {instance.name} is being removed")


def _check_grace(request: StopRequest) -> None:
    if request.grace is not None and not 0 <= request.grace <= 86400:
        raise InvalidInput(f"invalid grace of {request.grace:g} s", hint="Give 0 to 86400 seconds")
