"""The places of a service that one instance each should fill, and what is known of their occupants. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from aio.backoff import delay
from controller.condition import status_of
from controller.ingress import container_of
from controller.reconcile.prepull import Prepull, prepull_of
from model.ids import HostId, InstanceId
from model.records import Desired, Host, Instance, Rollout, Service
from model.spec import Availability, Struct
from model.status import HostState, InstanceStatus, Phase

FIRST_DELAY, LONGEST_DELAY, FACTOR = 1.0, 60.0, 4.0
AHEAD = 60.0
"""Seconds by which a time may lie ahead, as clocks of hosts differ. One further ahead is of a wrong clock, or
from before ours was set back, and is as good as long ago: nobody waits for it to come."""


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
    vacant: bool = False
    """A seat has nobody who is to stay in it."""
    rollout: Rollout | None = None
    """As it stands after this look; the service's own where nothing is new."""


@dataclass(slots=True)
class Occupants:
    """The instances of one seat, sorted out."""

    current: list[Instance] = field(default_factory=list)
    outdated: list[Instance] = field(default_factory=list)
    leaving: list[Instance] = field(default_factory=list)
    uprooted: list[Instance] = field(default_factory=list)
    """Those that serve on a drained host until their successor does."""
    history: list[Instance] = field(default_factory=list)


class Situation(Struct):
    """What a reconciler may look at besides the service and its instances."""

    hosts: Mapping[HostId, Host]
    statuses: Mapping[InstanceId, InstanceStatus]
    now: float
    prepulls: Mapping[Prepull, str | None] = {}

    def prepulled(self, service: Service, instances: Iterable[Instance]) -> tuple[bool, str]:
        """Whether the new image still comes to a host of these, and why it can't be had on one; empty:
        nothing is known against it."""
        found = [
            (i, self.prepulls[pull])
            for i in instances
            if (pull := prepull_of(service, i.host)) is not None and pull in self.prepulls
        ]
        failed = next(((i, why) for i, why in found if why), None)
        if failed is not None:
            host = self.hosts.get(failed[0].host) if failed[0].host is not None else None
            return False, f"host {host.spec.name if host else '?'} can't get the image: {failed[1]}"
        return any(why is None for _, why in found), ""

    def status(self, instance: Instance) -> InstanceStatus:
        host = self.hosts.get(instance.host) if instance.host is not None else None
        return status_of(instance, host, self.statuses.get(instance.id))

    def away(self, seat: Seat) -> bool:
        """Whether the seat's own host can't be asked now: nothing can be made there, or found out."""
        host = self.hosts.get(seat.host) if seat.host is not None else None
        return host is not None and (host.state is not HostState.READY or self.paused(seat))

    def paused(self, seat: Seat) -> bool:
        """Whether the seat's own host keeps what it has, and takes nothing new."""
        host = self.hosts.get(seat.host) if seat.host is not None else None
        return host is not None and host.spec.availability is Availability.PAUSE


def seat_of(service: Service, instance: Instance) -> Seat:
    return Seat(slot=instance.slot) if instance.slot else Seat(host=instance.host)


def gone(instance: Instance, reason: str) -> Retire:
    return Retire(instance=instance, desired=Desired.REMOVED, reason=reason)


def same(service: Service, instance: Instance) -> bool:
    return instance.spec == container_of(service.spec) and instance.placement == service.spec.placement


def serves(instance: Instance, now: Situation) -> bool:
    """It is ready, or has done its work."""
    status = now.status(instance)
    return status.ready or status.phase is Phase.EXITED


def ready_since(instance: Instance, now: Situation) -> float:
    """By its host's clock where that makes sense; an older host tells only when it started."""
    status = now.status(instance)
    times = (instance.created_at, status.ready_since or status.started_at)
    return max(min(at, now.now) if at <= now.now + AHEAD else 0.0 for at in times)


def due_at(service: Service, occupants: Occupants, now: float) -> float:
    """When the next one may be made in this seat: ever later, the more of its kind have failed there. At once
    where the last of them is from before the clock was set back."""
    made_by = container_of(service.spec)
    ended = [i for i in occupants.history if i.spec == made_by]
    if not ended or ended[-1].created_at > now:
        return 0.0
    wait = delay(len(ended), first=FIRST_DELAY, limit=LONGEST_DELAY, factor=FACTOR)
    return ended[-1].created_at + wait
