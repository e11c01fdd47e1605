"""Instances × hosts → placements, or an explanation. Pure.

Equal instances are one group: hosts are filtered once per group, then a heap of the possible ones hands out
the best, whose score alone is computed anew: n placements cost n × log(hosts), not n × hosts.
Invariant: no placement breaks a filter, and an explanation accounts for every host.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import msgspec

from controller.schedule.filters import CHANGING, LOCALITY, OPEN, Refusal, particular, refused
from controller.schedule.fleet import Candidate, Demand, Fleet
from controller.schedule.score import score
from model.ids import HostId
from model.spec import Struct

NOBODY: Mapping[HostId, Refusal] = MappingProxyType({})


class Explanation(Struct):
    """Why a host was not found: the sentence, and each host's own reason by host id."""

    text: str
    by_host: Mapping[HostId, str] = {}


class Placed(Struct):
    """`hosts` in the order of placement; fewer than asked for comes with an explanation."""

    hosts: tuple[HostId, ...] = ()
    explanation: Explanation | None = None


def place(demand: Demand, count: int, fleet: Fleet, barred: Mapping[HostId, Refusal] = NOBODY) -> Placed:
    """Find hosts for `count` instances of one kind, setting aside in `fleet` what they take. `barred` are out
    of the question, for reasons found elsewhere."""
    refusals = {host: refusal for host, refusal in barred.items() if host in fleet}
    possible = _possible(demand, fleet, refusals)
    heap = [score(demand, candidate) for candidate in possible]
    heapq.heapify(heap)
    placed: list[HostId] = []
    while heap and len(placed) < count:
        best = fleet[heap[0][-1]]
        refusal = refused(CHANGING, demand, best)
        if refusal is not None:
            refusals[best.id] = refusal
            heapq.heappop(heap)
            continue
        best.take(demand)
        placed.append(best.id)
        heapq.heapreplace(heap, score(demand, best))
    if len(placed) == count:
        return Placed(hosts=tuple(placed))
    return Placed(hosts=tuple(placed), explanation=explain(refusals))


def _possible(demand: Demand, fleet: Fleet, refusals: dict[HostId, Refusal]) -> list[Candidate]:
    possible: list[Candidate] = []
    filters = particular(demand)
    for candidate in fleet.values():
        if candidate.id in refusals:
            continue
        refusal = refused(filters, demand, candidate) if filters else None
        if refusal is None and not candidate.open:
            refusal = refused(OPEN, demand, candidate)
        if refusal is None:
            possible.append(candidate)
        else:
            refusals[candidate.id] = refusal
    known = tuple(n for n in demand.volumes if any(n in c.volumes for c in fleet.values()))
    if not demand.volumes_bind or not known:
        return possible  # a volume that exists nowhere will be made where the container lands
    bound = msgspec.structs.replace(demand, volumes=known)
    there: list[Candidate] = []
    for candidate in possible:
        refusal = LOCALITY(bound, candidate)
        if refusal is None:
            there.append(candidate)
        else:
            refusals[candidate.id] = refusal
    return there


def explain(refusals: Mapping[HostId, Refusal]) -> Explanation:
    """`3 hosts: 1 drained, 2 lack memory (need 512MiB, most free 300MiB)`."""
    by_host = {host: str(refusal) for host, refusal in sorted(refusals.items())}
    if not refusals:
        return Explanation(text="the fleet has no hosts")
    groups: dict[str, list[Refusal]] = {}
    for host in sorted(refusals):
        groups.setdefault(refusals[host].reason, []).append(refusals[host])
    parts = (_part(reason, group) for reason, group in sorted(groups.items()))
    noun = "host" if len(refusals) == 1 else "hosts"
    return Explanation(text=f"{len(refusals)} {noun}: " + ", ".join(parts), by_host=by_host)


def _part(reason: str, group: Iterable[Refusal]) -> str:
    same = list(group)
    best = max(same, key=lambda refusal: refusal.most)
    verb = reason.replace("lack ", "lacks ", 1) if len(same) == 1 else reason
    if best.show is None:
        return f"{len(same)} {verb}"
    return f"{len(same)} {verb} (need {best.need}, most free {best.show(best.most)})"
