"""Whether a change of a service goes well: completed, paused, or taken back. Pure.

What counts are the seats in which an instance of the new spec has failed since the change was asked for: it
ended or was started again by its restart policy, it could not be started, it is unhealthy. Invariant: a
rollout that is over or halted changes only by a new request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec.structs import replace

from controller.reconcile.failures import failure
from controller.reconcile.seat import Occupants, Seat, Situation, ready_since, same, serves
from model.records import Desired, Instance, Rollout, Service
from model.spec import ServiceSpec, UpdatePolicy

UPDATING: Final = "updating"
ROLLING_BACK: Final = "rollback_started"
HALTED = ("paused", "rollback_paused")
OVER = ("completed", "rollback_completed")


def policy_of(spec: ServiceSpec, rollout: Rollout | None) -> UpdatePolicy:
    """The one by which instances are replaced now."""
    back = rollout is not None and rollout.state.startswith("rollback")
    return spec.rollback if back else spec.update


def judged(
    service: Service, by_seat: Mapping[Seat, Occupants], now: Situation
) -> tuple[Rollout | None, float | None]:
    """The rollout as it stands, and when to look again if nothing else happens."""
    rollout = service.rollout
    if rollout is None or rollout.state not in (UPDATING, ROLLING_BACK):
        return rollout, None
    policy = policy_of(service.spec, rollout)
    failed = {seat: why for seat, o in by_seat.items() if (why := _failed(service, o, rollout, now))}
    ratio = len(failed) / len(by_seat) if by_seat else 0.0
    if ratio > policy.max_failure_ratio and policy.failure_action != "continue":
        words = f"{len(failed)} of {len(by_seat)} new instances failed: {next(iter(failed.values()))}"
        return _halted(service, rollout, policy, words, now.now), None
    present = [seat for seat in by_seat if not now.away(seat)]
    if not all(_arrived(by_seat[seat], now) for seat in present):
        return rollout, None
    proven = max((ready_since(i, now) for seat in present for i in by_seat[seat].current), default=0.0)
    if proven + policy.monitor > now.now:
        return rollout, proven + policy.monitor
    over = "completed" if rollout.state == UPDATING else "rollback_completed"
    return replace(rollout, state=over, completed_at=now.now), None


def _failed(service: Service, occupants: Occupants, rollout: Rollout, now: Situation) -> str:
    """Why a new instance of this seat failed, or would; empty if none did."""
    for instance in _fresh(service, (*occupants.history, *occupants.current), rollout):
        if instance.desired is Desired.STOPPED:
            return instance.reason
        status = now.status(instance)
        if status.restarts:
            return f"it did not stay up: {status.message}".removesuffix(": ")
        if why := failure(instance, status):
            return why
    return now.prepulled(service, occupants.outdated)[1]


def _fresh(service: Service, instances: Iterable[Instance], rollout: Rollout) -> Iterable[Instance]:
    return (i for i in instances if same(service, i) and i.generation >= rollout.generation)


def _halted(service: Service, rollout: Rollout, policy: UpdatePolicy, words: str, now: float) -> Rollout:
    if rollout.state == ROLLING_BACK:
        return replace(rollout, state="rollback_paused", message=words)
    if policy.failure_action == "rollback" and service.previous is not None:
        return Rollout(state=ROLLING_BACK, started_at=now, message=words)
    return replace(rollout, state="paused", message=words)


def _arrived(occupants: Occupants, now: Situation) -> bool:
    ready = any(serves(i, now) for i in occupants.current)
    return ready and not occupants.outdated and not occupants.leaving
