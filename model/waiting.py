"""When a wait for a container is over, and with what answer. Pure."""

from __future__ import annotations

from model.api import WaitCondition, WaitResult
from model.records import Desired, Instance
from model.spec import Publish
from model.status import BoundPort, InstanceStatus, Phase

Condition = WaitCondition
Mark = tuple[int, int, float]
"""Names one end of a container: attempt, restarts, time."""
_BEFORE_CREATED = frozenset({Phase.PENDING, Phase.ASSIGNED, Phase.PULLING, Phase.PREPARING})


def mark_of(status: InstanceStatus | None) -> Mark | None:
    """The end that this status tells of, if it tells of one."""
    if status is None or not (status.phase.ended or status.phase is Phase.RESTARTING):
        return None
    return status.attempt, status.restarts, status.finished_at


def answer(
    condition: Condition,
    instance: Instance | None,
    status: InstanceStatus | None,
    began: InstanceStatus | None,
) -> WaitResult | None:
    """The result if the wait is over. `instance` None: its record is gone, `status` is the last one known;
    `began` is what had been told when the wait began."""
    if instance is None or status is None:
        if instance is None:
            return _result(status, Phase.REMOVED)
        return None
    phase = status.phase
    if condition == "removed":
        # Nobody knows when its host comes back, and nothing is left to be decided.
        lost = phase is Phase.LOST and instance.desired is Desired.REMOVED
        return _result(status, phase) if lost else None
    if condition == "wired":
        if wired(instance, status):
            return WaitResult(exit_code=status.exit_code, phase=phase)
        return _result(status, phase) if not phase.live or _in_vain(instance, status) else None
    if condition == "limited":
        if not phase.live or status.limits == instance.spec.resources:
            return WaitResult(exit_code=status.exit_code, phase=phase)
        tried = bool(status.message) and status.limited_for >= instance.revision
        return _result(status, phase) if tried else None
    over = {
        "created": phase not in _BEFORE_CREATED,
        "running": phase is Phase.RUNNING or phase.ended,
        "stopped": phase.ended or phase is Phase.CREATED,
        "next-exit": mark_of(status) not in (None, mark_of(began)),
        "paused": _switched(instance, status, began, paused=True),
        "unpaused": _switched(instance, status, began, paused=False),
    }[condition]
    return _result(status, phase) if over else None


def wired(instance: Instance, status: InstanceStatus) -> bool:
    """Whether its networks and ports are those that are wanted, as far as a report tells."""
    feet = {(e.network, e.bandwidth_in, e.bandwidth_out) for e in status.endpoints}
    bound = [_port(port) for port in status.ports]
    wishes = [_port(port) for port in instance.spec.ports]
    enough = all(bound.count(port) >= wishes.count(port) for port in wishes)
    ports = not instance.attachments or (enough and (len(bound) == len(wishes) or instance.spec.publish_all))
    return feet == {(a.network, a.bandwidth_in, a.bandwidth_out) for a in instance.attachments} and ports


def _port(port: BoundPort | Publish) -> tuple[object, ...]:
    """What a wish and what stands have in common; the number may be the host's choice."""
    return port.target, port.protocol, port.host_ip, port.allow, port.proxy_protocol


def _switched(
    instance: Instance, status: InstanceStatus, began: InstanceStatus | None, *, paused: bool
) -> bool:
    """Whether it is, or nobody wants it any more, or it can't be, or its host has said since why not."""
    wanted = (instance.desired is Desired.PAUSED) is paused
    news = bool(status.message) and (began is None or status.message != began.message)
    return status.paused is paused or not wanted or status.phase is not Phase.RUNNING or news


def _in_vain(instance: Instance, status: InstanceStatus) -> bool:
    """Whether its host has tried what is wanted now, and says why it can't."""
    return bool(status.message) and status.wired_for >= instance.revision


def _result(status: InstanceStatus | None, phase: Phase) -> WaitResult:
    if status is None:
        return WaitResult(exit_code=None, phase=phase)
    return WaitResult(exit_code=status.exit_code, phase=phase, message=status.message)
