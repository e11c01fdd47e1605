"""From an old spec to a new one, so many seats at a time. Pure.

Invariants: a seat that serves is given up only while fewer than `parallelism` others are on their way, by
start-first only once its successor serves, and not at all while the rollout is paused. What serves is ready
(`InstanceStatus.ready`), so with a health check the next seat waits until the last one is well, and the pause
between them begins then. By stop-first nothing that serves goes while its host still gets the new image.
"""

from __future__ import annotations

from collections.abc import Mapping

from controller.reconcile.rollout import HALTED, policy_of
from controller.reconcile.seat import (
    Make,
    Occupants,
    Retire,
    Seat,
    Situation,
    due_at,
    gone,
    ready_since,
    serves,
)
from model.records import Rollout, Service
from model.spec import UpdatePolicy


def roll(
    service: Service,
    by_seat: Mapping[Seat, Occupants],
    now: Situation,
    rollout: Rollout | None,
    *,
    make: list[Make],
    retire: list[Retire],
    due: list[float],
) -> None:
    """Bring outdated seats up to date, so many at a time."""
    update = policy_of(service.spec, rollout)
    moving = 0
    stale: list[tuple[Seat, Occupants]] = []
    for seat, occupants in by_seat.items():
        retire += _outrun(occupants, now)
        running = any(serves(i, now) for i in occupants.current)
        if occupants.outdated and running:
            retire += [gone(i, "its successor is ready") for i in occupants.outdated]
        elif occupants.outdated and now.paused(seat):
            continue  # no successor could take its place: it stays until the host takes work again
        elif occupants.outdated and not occupants.current:
            stale.append((seat, occupants))
            moving += not any(serves(i, now) for i in occupants.outdated)
        elif not running and not now.away(seat):
            moving += 1
        if occupants.outdated and occupants.current and not running and update.order == "stop-first":
            retire += [gone(i, "it is outdated") for i in occupants.outdated]
    if not stale or (rollout is not None and rollout.state in HALTED):
        return
    arrived = (i for o in by_seat.values() for i in o.current if serves(i, now))
    newest = max((ready_since(i, now) for i in arrived), default=0.0)
    if update.delay and newest + update.delay > now.now:
        due.append(newest + update.delay)
        return
    budget = len(stale) if update.parallelism <= 0 else max(0, update.parallelism - moving)
    _renew(service, stale, now, update, budget, make=make, retire=retire, due=due)


def _renew(
    service: Service,
    stale: list[tuple[Seat, Occupants]],
    now: Situation,
    update: UpdatePolicy,
    budget: int,
    *,
    make: list[Make],
    retire: list[Retire],
    due: list[float],
) -> None:
    """Begin with outdated seats, `budget` of those that serve; those that don't have nothing to lose: they go
    first, whatever the budget."""
    made = {item.seat for item in make}
    stale.sort(key=lambda entry: (any(serves(i, now) for i in entry[1].outdated), entry[0].slot))
    for seat, occupants in stale:
        serving = any(serves(i, now) for i in occupants.outdated)
        if serving and budget <= 0:
            continue
        if (at := due_at(service, occupants, now.now)) > now.now:
            due.append(at)
            continue
        if serving and update.order == "stop-first" and now.prepulled(service, occupants.outdated)[0]:
            continue  # its end wakes us
        budget -= serving
        reason = f"the service changed (generation {service.generation})"
        if update.order == "stop-first" or not serving:
            retire += [gone(i, reason) for i in occupants.outdated]
        if (update.order == "start-first" or not serving) and seat not in made:
            make.append(Make(seat=seat, reason=reason))


def _outrun(occupants: Occupants, now: Situation) -> list[Retire]:
    """Of several outdated ones (the service changed twice in a row) only the last that serves is worth
    keeping until its successor runs."""
    serving = [i for i in occupants.outdated if serves(i, now)]
    if not serving:
        return []
    spare = [i for i in occupants.outdated if i is not serving[-1]]
    occupants.outdated = serving[-1:]
    return [gone(i, "the service changed again before it was needed") for i in spare]
