"""Which of the possible hosts is best: lower scores win. Pure.

Invariant: a score is a total order (it ends with the host's id), so that equal input gives equal placements.
"""

from __future__ import annotations

from controller.schedule.fleet import Candidate, Demand
from model.ids import HostId

Score = tuple[int, float, float, int, HostId]


def score(demand: Demand, candidate: Candidate) -> Score:
    """spread: fewest of this service, then least loaded. binpack: most loaded first."""
    away = len(set(demand.volumes) - candidate.volumes) if demand.volumes else 0
    mine = candidate.of_service.get(demand.service, 0)
    if demand.placement.strategy == "binpack":
        return away, -candidate.load, -mine, -candidate.instances, candidate.id
    if demand.service is None:
        return away, candidate.load, candidate.instances, 0, candidate.id
    return away, mine, candidate.load, candidate.instances, candidate.id
