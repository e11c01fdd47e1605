"""Giving instances their hosts: the scheduler, then the addresses they need there. Pure.

Invariant: an instance gets its host and its host's blocks in one commit, or neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import groupby

from msgspec.structs import replace

from controller import fixed
from controller.addressing import Leases
from controller.schedule.fleet import Demand, Fleet, demand_of
from controller.schedule.place import Explanation, place
from controller.snapshot import Cluster
from model.errors import Exhausted, InUse
from model.ids import HostId, InstanceId
from model.records import Instance
from model.spec import Struct
from model.status import HostReport, InstanceStatus


class World(Struct):
    """What is known of the hosts beyond the records: their last reports, as they stand now."""

    statuses: Mapping[InstanceId, InstanceStatus] = {}
    reports: Mapping[HostId, HostReport] = {}
    settling: frozenset[HostId] = frozenset()


class Assigned(Struct):
    """The instances with their hosts; those without one carry the explanation as their reason."""

    instances: tuple[Instance, ...]
    explanation: Explanation | None = None


def assign(
    cluster: Cluster,
    instances: Sequence[Instance],
    fleet: Fleet,
    leases: Leases,
    pins: Set[HostId] = frozenset(),
) -> Assigned:
    """Find hosts for instances of one service or for plain ones; equal ones are placed as one group.

    `pins` narrows the hosts for all of them.
    """
    done: list[Instance] = []
    explanation: Explanation | None = None
    within = fleet if not pins else {host: c for host, c in fleet.items() if host in pins}
    for demand, group in _groups(instances):
        placed = place(demand, len(group), _within(demand, within))
        explanation = placed.explanation or explanation
        for index, instance in enumerate(group):
            if index < len(placed.hosts):
                done.append(_with_host(cluster, instance, placed.hosts[index], leases))
            else:
                why = placed.explanation.text if placed.explanation else ""
                done.append(replace(instance, host=None, reason=f"no host: {why}"))
    return Assigned(instances=tuple(done), explanation=explanation or _unleased(done))


def _within(demand: Demand, fleet: Fleet) -> Fleet:
    """A pinned instance is explained by its own host alone."""
    if demand.pinned is None or demand.pinned not in fleet:
        return fleet
    return {demand.pinned: fleet[demand.pinned]}


def _groups(instances: Iterable[Instance]) -> Iterable[tuple[Demand, list[Instance]]]:
    demands = [(_demand(instance), instance) for instance in instances]
    for demand, group in groupby(demands, key=lambda pair: pair[0]):
        yield demand, [instance for _, instance in group]


def _demand(instance: Instance) -> Demand:
    pinned = instance.host if instance.pinned else None
    return demand_of(instance.spec, instance.placement, service=instance.service, pinned=pinned)


def _with_host(cluster: Cluster, instance: Instance, host: HostId, leases: Leases) -> Instance:
    try:
        attachments = tuple(fixed.hold(leases, a, instance, host) for a in instance.attachments)
        for attachment in attachments:
            leases.ensure(cluster.networks[attachment.network], host, attachment)
    except Exhausted as error:
        return replace(instance, host=None, reason=f"no address: {error}")
    except InUse as error:
        if instance.service is None:
            raise
        return replace(instance, host=None, reason=f"no address: {error}")
    return replace(instance, host=host, attachments=attachments)


def _unleased(instances: Iterable[Instance]) -> Explanation | None:
    reasons = [i.reason for i in instances if i.host is None]
    return Explanation(text=reasons[0]) if reasons else None
