"""Global services: one seat on every host that they belong on. Pure.

A host that is silent or lost keeps its seat: there is nowhere else to put what belongs to that host.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

from controller.reconcile.seat import Outcome, Seat, Situation
from controller.reconcile.seats import settle
from controller.schedule.filters import ELIGIBLE, refused
from controller.schedule.fleet import Fleet, demand_of
from model.ids import HostId
from model.records import Instance, Service
from model.spec import Availability
from model.status import HostState


def reconcile(service: Service, instances: Iterable[Instance], now: Situation, fleet: Fleet) -> Outcome:
    """What to make and what to retire so that each eligible host runs one instance."""
    every = list(instances)
    have = {i.host for i in every if i.host is not None}
    wanted = [] if service.removed else sorted(_eligible(service, fleet, have))
    seats = [(Seat(host=host), "every host that fits runs one") for host in wanted]
    return settle(service, seats, every, now)


def _eligible(service: Service, fleet: Fleet, have: Set[HostId]) -> set[HostId]:
    """Hosts in session that pass, and those that have one already as long as they may keep it."""
    demand = demand_of(service.spec.container, service.spec.placement, service=service.id)
    found: set[HostId] = set()
    for host, candidate in fleet.items():
        node = candidate.host
        refusal = refused(ELIGIBLE, demand, candidate)
        if host in have:
            fits = refusal is None or node.spec.availability is Availability.PAUSE
        else:
            fits = refusal is None and node.state is HostState.READY
        if fits:
            found.add(host)
    return found
