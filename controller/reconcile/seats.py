"""Seats: the places of a service that one instance each should fill, and how they get there. Pure.

A replicated service has numbered seats, a global one a seat on each host; what differs is only who computes
the wanted seats. Instances are replaced, never edited. Invariants: no plan makes more than one new instance
per seat, and none for a seat that is not wanted; a rollout touches at most `parallelism` seats at a time; an
instance that fails again and again is replaced ever more slowly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from aio.backoff import delay
from controller.condition import ending, finished, status_of
from controller.ingress import container_of
from model.ids import HostId, InstanceId
from model.records import Desired, Host, Instance, Service
from model.spec import Availability, Struct
from model.status import HostState, InstanceStatus, Phase

HISTORY = 4
"""Ended instances kept per seat, for their logs and exit codes."""
FIRST_DELAY, LONGEST_DELAY, FACTOR = 1.0, 60.0, 4.0


class Seat(Struct):
    """`slot` counts from 1 in replicated services; a global service's seat has slot 0 and a host."""

    slot: int = 0
    host: HostId | None = None


class Make(Struct):
    """Wanted: one new instance."""

    seat: Seat
    reason: str


class Retire(Struct):
    """An instance that should not run any longer: `stopped` is kept as history, `removed` goes."""

    instance: Instance
    desired: Desired
    reason: str


class Outcome(Struct):
    make: tuple[Make, ...] = ()
    retire: tuple[Retire, ...] = ()
    retry_at: float | None = None


@dataclass(slots=True)
class _Occupants:
    """The instances of one seat, sorted out."""

    current: list[Instance] = field(default_factory=list)
    outdated: list[Instance] = field(default_factory=list)
    leaving: list[Instance] = field(default_factory=list)
    history: list[Instance] = field(default_factory=list)


class Situation(Struct):
    """What a reconciler may look at besides the service and its instances."""

    hosts: Mapping[HostId, Host]
    statuses: Mapping[InstanceId, InstanceStatus]
    now: float

    def status(self, instance: Instance) -> InstanceStatus:
        host = self.hosts.get(instance.host) if instance.host is not None else None
        return status_of(instance, host, self.statuses.get(instance.id))


def seat_of(service: Service, instance: Instance) -> Seat:
    return Seat(slot=instance.slot) if instance.slot else Seat(host=instance.host)


def settle(
    service: Service, wanted: Sequence[tuple[Seat, str]], instances: Iterable[Instance], now: Situation
) -> Outcome:
    """Fill the wanted seats (each with the reason to want it), empty the others."""
    retire: list[Retire] = []
    by_seat: dict[Seat, _Occupants] = {seat: _Occupants() for seat, _ in wanted}
    surplus: dict[Seat, list[Instance]] = {}
    for instance in sorted(instances, key=lambda i: (i.created_at, i.id)):
        seat = seat_of(service, instance)
        if seat in by_seat:
            _sort_in(service, by_seat[seat], instance, now, retire)
        else:
            surplus.setdefault(seat, []).append(instance)
    for seat, extra in surplus.items():
        retire += [_gone(i, _unwanted(service, seat)) for i in extra if i.desired is not Desired.REMOVED]
    make: list[Make] = []
    due: list[float] = []
    for seat, reason in wanted:
        occupants = by_seat[seat]
        retire += [_gone(i, "only the last ones are kept") for i in occupants.history[:-HISTORY]]
        retire += [_gone(i, "another one has its place") for i in occupants.current[:-1]]
        if not occupants.current and not occupants.outdated:
            _fill(service, seat, reason, occupants, now, make=make, due=due)
    _roll(service, by_seat, now, make=make, retire=retire, due=due)
    return Outcome(make=tuple(make), retire=tuple(retire), retry_at=min(due, default=None))


def _sort_in(
    service: Service, occupants: _Occupants, instance: Instance, now: Situation, retire: list[Retire]
) -> None:
    if instance.desired is Desired.REMOVED:
        occupants.leaving.append(instance)
        return
    if instance.desired is Desired.STOPPED:
        occupants.history.append(instance)
        return
    reason = _uprooted(service, instance, now)
    if reason:
        retire.append(_gone(instance, reason))
        occupants.leaving.append(replace(instance, reason=reason))
        return
    status = now.status(instance)
    over = status.phase.ended and status.phase is not Phase.LOST
    if over and not finished(instance.spec.restart, status):
        retire.append(Retire(instance=instance, desired=Desired.STOPPED, reason=f"it {ending(status)}"))
        occupants.history.append(instance)
        return
    fresh = _same(service, instance) and instance.placement == service.spec.placement
    (occupants.current if fresh else occupants.outdated).append(instance)


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


def _unwanted(service: Service, seat: Seat) -> str:
    if service.removed:
        return "its service is being removed"
    return f"the service has no place {seat.slot}" if seat.slot else "the service has no place on this host"


def _gone(instance: Instance, reason: str) -> Retire:
    return Retire(instance=instance, desired=Desired.REMOVED, reason=reason)


def _fill(
    service: Service,
    seat: Seat,
    reason: str,
    occupants: _Occupants,
    now: Situation,
    *,
    make: list[Make],
    due: list[float],
) -> None:
    """An empty seat: fill it at once, or after the delay that its failures have earned."""
    if service.spec.update.order == "stop-first" and _still_leaving(occupants, now):
        return  # its end is an event, which brings us back here
    ended = [i for i in occupants.history if _same(service, i)]
    if ended:
        last = now.status(ended[-1])
        wait = delay(len(ended), first=FIRST_DELAY, limit=LONGEST_DELAY, factor=FACTOR)
        ready = ended[-1].created_at + wait
        if ready > now.now:
            due.append(ready)
            return
        reason = f"the last one {ending(last)}"
    elif occupants.leaving:
        reason = occupants.leaving[-1].reason or reason
    make.append(Make(seat=seat, reason=reason))


def _same(service: Service, instance: Instance) -> bool:
    return instance.spec == container_of(service)


def _still_leaving(occupants: _Occupants, now: Situation) -> bool:
    """Whether the old one may still run on a host that can tell us when it has ended."""
    for instance in occupants.leaving:
        host = now.hosts.get(instance.host) if instance.host is not None else None
        known = host is not None and host.state in (HostState.READY, HostState.UNKNOWN)
        drained = host is not None and host.spec.availability is Availability.DRAIN
        if known and not drained and not now.status(instance).phase.ended:
            return True
    return False


def _roll(
    service: Service,
    by_seat: Mapping[Seat, _Occupants],
    now: Situation,
    *,
    make: list[Make],
    retire: list[Retire],
    due: list[float],
) -> None:
    """Bring outdated seats up to date, so many at a time."""
    update = service.spec.update
    made = {item.seat for item in make}
    moving = 0
    stale: list[tuple[Seat, _Occupants]] = []
    for seat, occupants in by_seat.items():
        retire += _outrun(occupants, now)
        running = any(_serves(i, now) for i in occupants.current)
        if occupants.outdated and running:
            retire += [_gone(i, "its successor runs") for i in occupants.outdated]
        elif occupants.outdated and not occupants.current:
            stale.append((seat, occupants))
        elif not running and (service.previous is not None):
            moving += 1
        if occupants.outdated and occupants.current and not running and update.order == "stop-first":
            retire += [_gone(i, "it is outdated") for i in occupants.outdated]
    if not stale:
        return
    newest = max((i.created_at for o in by_seat.values() for i in o.current), default=0.0)
    if update.delay and newest + update.delay > now.now:
        due.append(newest + update.delay)
        return
    budget = len(stale) if update.parallelism <= 0 else max(0, update.parallelism - moving)
    # those that do not run have nothing to lose: they go first, and do not count
    stale.sort(key=lambda entry: (any(_serves(i, now) for i in entry[1].outdated), entry[0].slot))
    for seat, occupants in stale:
        serving = any(_serves(i, now) for i in occupants.outdated)
        if serving and budget <= 0:
            continue
        budget -= serving
        reason = f"the service changed (generation {service.generation})"
        if update.order == "stop-first" or not serving:
            retire += [_gone(i, reason) for i in occupants.outdated]
        if (update.order == "start-first" or not serving) and seat not in made:
            make.append(Make(seat=seat, reason=reason))


def _outrun(occupants: _Occupants, now: Situation) -> list[Retire]:
    """Of several outdated ones (the service changed twice in a row) only the last that serves is worth
    keeping until its successor runs."""
    serving = [i for i in occupants.outdated if _serves(i, now)]
    if not serving:
        return []
    spare = [i for i in occupants.outdated if i is not serving[-1]]
    occupants.outdated = serving[-1:]
    return [_gone(i, "the service changed again before it was needed") for i in spare]


def _serves(instance: Instance, now: Situation) -> bool:
    return now.status(instance).phase in (Phase.RUNNING, Phase.EXITED)
