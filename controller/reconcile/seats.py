"""Seats: the places of a service that one instance each should fill, and how they get there. Pure.

A replicated service has numbered seats, a global one a seat on each host; what differs is only who computes
the wanted seats. Instances are replaced, never edited. Invariants: no plan makes more than one new instance
per seat, and none for a seat that is not wanted; an instance that fails again and again is replaced ever more
slowly. `rolling` is how seats get a new spec, `rollout` whether that goes well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from controller.reconcile.failures import failure
from controller.reconcile.rolling import roll
from controller.reconcile.rollout import ROLLING_BACK, judged
from controller.reconcile.seat import (
    Make,
    Occupants,
    Outcome,
    Retire,
    Seat,
    Situation,
    due_at,
    gone,
    same,
    seat_of,
    serves,
)
from model.records import Desired, Instance, Service
from model.spec import Availability
from model.status import HostState

HISTORY = 4
"""Ended instances kept per seat, for their logs and exit codes."""


def settle(
    service: Service, wanted: Sequence[tuple[Seat, str]], instances: Iterable[Instance], now: Situation
) -> Outcome:
    """Fill the wanted seats (each with the reason to want it), empty the others."""
    retire: list[Retire] = []
    by_seat: dict[Seat, Occupants] = {seat: Occupants() for seat, _ in wanted}
    surplus: dict[Seat, list[Instance]] = {}
    # those from before the clock was set back are older than all that were made since
    for instance in sorted(instances, key=lambda i: (i.created_at <= now.now, i.created_at, i.id)):
        seat = seat_of(service, instance)
        if seat in by_seat:
            _sort_in(service, by_seat[seat], instance, now, retire)
        else:
            surplus.setdefault(seat, []).append(instance)
    for seat, extra in surplus.items():
        retire += [gone(i, _unwanted(service, seat)) for i in extra if i.desired is not Desired.REMOVED]
    rollout, again = judged(service, by_seat, now)
    if rollout is not service.rollout and rollout is not None and rollout.state == ROLLING_BACK:
        return Outcome(rollout=rollout)  # all else follows from the spec that stands then
    make: list[Make] = []
    due = [] if again is None else [again]
    for seat, reason in wanted:
        occupants = by_seat[seat]
        retire += [gone(i, "only the last ones are kept") for i in occupants.history[:-HISTORY]]
        retire += _relieved(occupants, now)
        if not occupants.current and not occupants.outdated:
            _fill(service, seat, reason, occupants, now, make=make, due=due)
    roll(service, by_seat, now, rollout, make=make, retire=retire, due=due)
    return Outcome(
        make=tuple(make),
        retire=tuple(retire),
        retry_at=min(due, default=None),
        vacant=any(not o.current and not o.outdated for o in by_seat.values()),
        rollout=rollout,
    )


def _sort_in(
    service: Service, occupants: Occupants, instance: Instance, now: Situation, retire: list[Retire]
) -> None:
    if instance.desired is Desired.REMOVED:
        occupants.leaving.append(instance)
        return
    if instance.desired is Desired.STOPPED:
        occupants.history.append(instance)
        return
    reason = _uprooted(service, instance, now)
    if reason and _stays_a_while(service, instance, now):
        occupants.uprooted.append(replace(instance, reason=reason))
        return
    if reason:
        retire.append(gone(instance, reason))
        occupants.leaving.append(replace(instance, reason=reason))
        return
    problem = failure(instance, now.status(instance))
    if problem:
        failed = replace(instance, desired=Desired.STOPPED, reason=problem)
        retire.append(Retire(instance=instance, desired=Desired.STOPPED, reason=problem))
        occupants.history.append(failed)
        return
    (occupants.current if same(service, instance) else occupants.outdated).append(instance)


def _uprooted(service: Service, instance: Instance, now: Situation) -> str:
    """Why an instance can't stay on its host, if so."""
    if instance.host is None:
        return ""
    host = now.hosts.get(instance.host)
    if host is None:
        return f"its host {instance.host[:12]} was removed from the fleet"
    if host.spec.availability is Availability.DRAIN:
        return f"host {host.spec.name} is drained"
    if host.state is HostState.LOST and not instance.pinned:
        return f"host {host.spec.name} is lost: {host.state_reason}"
    return ""


def _relieved(occupants: Occupants, now: Situation) -> list[Retire]:
    """Of several in one seat the last that serves has it, or else the last; so an uprooted one goes once its
    successor serves."""
    serving = [i for i in occupants.current if serves(i, now)]
    keeps = (serving or occupants.current)[-1:]
    spare = [gone(i, "another one has its place") for i in occupants.current if i not in keeps]
    uprooted = occupants.uprooted if serving else occupants.uprooted[:-1]
    return spare + [gone(i, i.reason) for i in uprooted]


def _stays_a_while(service: Service, instance: Instance, now: Situation) -> bool:
    """By start-first what serves on a host that is drained is given up only once its successor serves."""
    host = now.hosts.get(instance.host) if instance.host is not None else None
    drained = host is not None and host.spec.availability is Availability.DRAIN
    overlaps = service.spec.update.order == "start-first" and instance.slot > 0
    return drained and overlaps and serves(instance, now)


def _unwanted(service: Service, seat: Seat) -> str:
    if service.removed:
        return "its service is being removed"
    return f"the service has no place {seat.slot}" if seat.slot else "the service has no place on this host"


def _fill(
    service: Service,
    seat: Seat,
    reason: str,
    occupants: Occupants,
    now: Situation,
    *,
    make: list[Make],
    due: list[float],
) -> None:
    """An empty seat: fill it at once, or after the delay that its failures have earned."""
    if service.spec.update.order == "stop-first" and _still_leaving(occupants, now):
        return  # its end is an event, which brings us back here
    at = due_at(service, occupants, now.now)
    if at > now.now:
        due.append(at)
        return
    if at:
        reason = f"the last one {occupants.history[-1].reason.removeprefix('it ')}"
    elif occupants.leaving or occupants.uprooted:
        reason = (*occupants.uprooted, *occupants.leaving)[-1].reason or reason
    make.append(Make(seat=seat, reason=reason))


def _still_leaving(occupants: Occupants, now: Situation) -> bool:
    """Whether the old one may still run on a host that can tell us when it has ended."""
    for instance in (*occupants.leaving, *occupants.history[-1:]):
        host = now.hosts.get(instance.host) if instance.host is not None else None
        known = host is not None and host.state in (HostState.READY, HostState.UNKNOWN)
        drained = host is not None and host.spec.availability is Availability.DRAIN
        if known and not drained and not now.status(instance).phase.ended:
            return True
    return False
