"""Hard constraints: may this instance run on that host, and if not, why. Pure.

Invariant: each filter that refuses says so in words for people; a placement is legal exactly when none does.
`OPEN` and `particular` ones are asked once per group and host, `CHANGING` ones at each placement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from controller.schedule.constraints import matches, parse_constraint
from controller.schedule.fleet import Candidate, Demand
from model.quantity import NANO, format_bytes
from model.spec import Availability
from model.status import HostState


class Refusal(NamedTuple):
    """Why one host can't. Hosts with the same `reason` are counted together; `most` is what the best of
    them has free, `need` and `unit` make the detail."""

    reason: str
    need: str = ""
    most: float = 0.0
    show: Callable[[float], str] | None = None

    def __str__(self) -> str:
        if self.show is None:
            return self.reason
        return f"{self.reason} (need {self.need}, free {self.show(self.most)})"


Filter = Callable[[Demand, Candidate], Refusal | None]


_STATES = {
    HostState.UNKNOWN: "silent (state unknown)",
    HostState.LOST: "lost",
    HostState.JOINING: "not connected yet",
}


def _state(demand: Demand, candidate: Candidate) -> Refusal | None:
    if candidate.host.state is HostState.READY:
        return None
    return Refusal(_STATES[candidate.host.state])


def _availability(demand: Demand, candidate: Candidate) -> Refusal | None:
    availability = candidate.host.spec.availability
    if availability is Availability.ACTIVE:
        return None
    return Refusal("drained" if availability is Availability.DRAIN else "paused")


def _settling(demand: Demand, candidate: Candidate) -> Refusal | None:
    return Refusal("settling after it came and went") if candidate.settling else None


def _pinned(demand: Demand, candidate: Candidate) -> Refusal | None:
    if demand.pinned is None or demand.pinned == candidate.id:
        return None
    return Refusal("not the chosen one")


def _platform(demand: Demand, candidate: Candidate) -> Refusal | None:
    if not demand.platform:
        return None
    want, have = demand.platform.split("/"), candidate.host.facts.platform
    mine = [have.os, have.arch, have.variant]
    if all(a == b for a, b in zip(want, mine, strict=False)):
        return None
    return Refusal(f"of another platform than {demand.platform}")


def _constraints(demand: Demand, candidate: Candidate) -> Refusal | None:
    for text in demand.placement.constraints:
        if not matches(parse_constraint(text), candidate.host):
            return Refusal(f"not matching {text}")
    return None


def _networks(demand: Demand, candidate: Candidate) -> Refusal | None:
    found = next((candidate.lacking[n] for n in demand.networks if n in candidate.lacking), None)
    return Refusal(found) if found is not None else None


def _volumes(demand: Demand, candidate: Candidate) -> Refusal | None:
    if not demand.volumes_bind:
        return None
    missing = [name for name in demand.volumes if name not in candidate.volumes]
    return Refusal(f"without volume {missing[0]}") if missing else None


def _cpus(demand: Demand, candidate: Candidate) -> Refusal | None:
    need = demand.placement.reservations.nano_cpus
    if need <= candidate.nano_cpus or not need:
        return None
    return Refusal("lack cpus", f"{need / NANO:g}", max(0, candidate.nano_cpus), lambda n: f"{n / NANO:g}")


def _memory(demand: Demand, candidate: Candidate) -> Refusal | None:
    need = demand.placement.reservations.memory
    if need <= candidate.memory or not need:
        return None
    return Refusal("lack memory", format_bytes(need), max(0, candidate.memory), format_bytes)


def _ports(demand: Demand, candidate: Candidate) -> Refusal | None:
    if not demand.ports:
        return None
    taken = candidate.taken_port(demand.ports)
    return Refusal(f"with port {taken[1]}/{taken[0]} in use") if taken else None


def _max_per_host(demand: Demand, candidate: Candidate) -> Refusal | None:
    limit = demand.placement.max_per_host
    if not limit or candidate.of_service.get(demand.service, 0) < limit:
        return None
    return Refusal(f"full ({limit} per host)")


ELIGIBLE: Sequence[Filter] = (_pinned, _availability, _platform, _constraints, _networks)
"""What decides where a global service belongs, reachable or not."""
OPEN: Sequence[Filter] = (_state, _availability, _settling)
"""What a host says of itself, whatever is asked of it; `Candidate.open` is the short form."""
LOCALITY: Filter = _volumes
CHANGING: Sequence[Filter] = (_cpus, _memory, _ports, _max_per_host)


def particular(demand: Demand) -> Sequence[Filter]:
    """The filters that this demand can fail at and that placing does not change."""
    wanted: list[Filter] = [_pinned] if demand.pinned is not None else []
    if demand.platform:
        wanted.append(_platform)
    if demand.placement.constraints:
        wanted.append(_constraints)
    if demand.networks:
        wanted.append(_networks)
    return wanted


def refused(filters: Sequence[Filter], demand: Demand, candidate: Candidate) -> Refusal | None:
    """The first refusal, in the order of the list."""
    for check in filters:
        refusal = check(demand, candidate)
        if refusal is not None:
            return refusal
    return None
