"""Replicated services: seats 1 to N. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from controller.reconcile.seat import Outcome, Seat, Situation
from controller.reconcile.seats import settle
from model.records import Instance, Service
from model.spec import Replicated


def reconcile(service: Service, instances: Iterable[Instance], now: Situation) -> Outcome:
    """What to make and what to retire so that `replicas` instances of the present spec run."""
    mode = service.spec.mode
    assert isinstance(mode, Replicated)
    count = 0 if service.removed else mode.replicas
    reason = f"{count} {'replica is' if count == 1 else 'replicas are'} wanted"
    return settle(service, [(Seat(slot=slot), reason) for slot in range(1, count + 1)], instances, now)
