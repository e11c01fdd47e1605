"""Images that hosts get before a roll gives up what serves there. Pure.

What becomes of one: None, it goes on; empty, the image is there, or that can't be found out; else why it
can't be had. Invariant: a pull is known by the rollout that it is for, so that an update that is asked for
again tries again; what nobody pulls is not waited for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controller.schedule.constraints import matches, parse_constraint
from model.ids import HostId, ServiceId
from model.records import Desired, Host, Instance, Service
from model.spec import Availability, Struct

ROLLS = ("updating", "rollback_started")


class Prepull(Struct):
    service: ServiceId
    rollout: float
    """When it began."""
    image: str
    host: HostId
    platform: str = ""
    """That the service wants; empty: the host's own."""


def prepull_of(service: Service, host: HostId | None) -> Prepull | None:
    """Of a service that changes; only an image that is named by its digest stays the same until it is
    needed."""
    rollout, wish = service.rollout, service.spec.container
    if host is None or rollout is None or rollout.state not in ROLLS:
        return None
    if service.removed or "@" not in wish.image or wish.pull == "never":
        return None
    return Prepull(
        service=service.id, rollout=rollout.started_at, image=wish.image, host=host, platform=wish.platform
    )


def wanted(service: Service, instances: Iterable[Instance], hosts: Mapping[HostId, Host]) -> set[Prepull]:
    """On every host where something runs that is to be replaced, and where its successor may run."""
    image = service.spec.container.image
    old = {i.host for i in instances if i.desired is Desired.RUNNING and i.spec.image != image}
    return {
        found
        for host in old
        if (found := prepull_of(service, host)) is not None and _fits(service, hosts.get(found.host))
    }


def _fits(service: Service, host: Host | None) -> bool:
    """An image may be none for a host that the service leaves."""
    if host is None or host.spec.availability is Availability.DRAIN:
        return False
    return all(matches(parse_constraint(text), host) for text in service.spec.placement.constraints)
