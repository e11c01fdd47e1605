"""Giving instances their hosts: the scheduler, then the addresses they need there. Pure.

Invariant: an instance gets its host and its host's blocks in one commit, or neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import groupby

from msgspec.structs import replace

from controller import fixed
from controller.addressing import Leases
from controller.reconcile.prepull import Prepull
from controller.schedule.filters import Refusal
from controller.schedule.fleet import Demand, Fleet, demand_of
from controller.schedule.place import Explanation, place
from controller.snapshot import Cluster
from model.errors import Exhausted, InUse
from model.ids import HostId, InstanceId, short
from model.records import Instance, Network
from model.spec import Struct
from model.status import HostReport, InstanceStatus


class World(Struct):
    """What is known of the hosts beyond the records: their last reports, as they stand now."""

    statuses: Mapping[InstanceId, InstanceStatus] = {}
    reports: Mapping[HostId, HostReport] = {}
    settling: frozenset[HostId] = frozenset()
    strays: Mapping[InstanceId, str] = {}
    """Addresses that hosts reported and that are not theirs, in words."""
    prepulls: Mapping[Prepull, str | None] = {}
    """As `controller.reconcile.prepull` says."""
    own: Mapping[HostId, Sequence[Instance]] = {}
    """What hosts made on their own sockets."""


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
        housed, why = _housed(cluster, demand, group, _within(demand, within), leases)
        explanation = why or explanation
        done += housed
    return Assigned(instances=tuple(done), explanation=explanation or _unleased(done))


def _housed(
    cluster: Cluster, demand: Demand, group: Iterable[Instance], fleet: Fleet, leases: Leases
) -> tuple[list[Instance], Explanation | None]:
    """Equal instances with their hosts. A host without an address for one of them is full for all, and others
    are looked for."""
    full: dict[HostId, Refusal] = {}
    words: set[str] = set()
    done: list[Instance] = []
    left = list(group)
    placed = place(demand, len(left), fleet)
    while placed.hosts:
        stuck: list[Instance] = []
        for instance, host in zip(left, placed.hosts, strict=False):
            if host not in full:
                made, network, said = _with_addresses(cluster, instance, host, leases)
                if network is None:
                    done.append(made)
                    if made.host is None:
                        fleet[host].give_back(demand)
                    continue
                full[host] = Refusal(f"without a free address in network {network.spec.name}")
                words.add(said)
            fleet[host].give_back(demand)
            stuck.append(instance)
        left = [*stuck, *left[len(placed.hosts) :]]
        if not stuck:
            break
        placed = place(demand, len(left), fleet, full)
    why = placed.explanation
    if why is None:
        return done, None
    if len(words) == 1:
        said = next(iter(words))
        alone = why.by_host.keys() == full.keys()
        why = replace(why, text=f"no address: {said}" if alone else f"{why.text}; {said}")
    reason = why.text if why.text.startswith("no address") else f"no host: {why.text}"
    return [*done, *(replace(instance, host=None, reason=reason) for instance in left)], why


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


def _with_addresses(
    cluster: Cluster, instance: Instance, host: HostId, leases: Leases
) -> tuple[Instance, Network | None, str]:
    """With that host, or without where its own addresses can't be had, whatever the host; or a network that
    has none left there for anybody, and the words for it."""
    removed = next((a.network for a in instance.attachments if a.network not in cluster.networks), None)
    if removed is not None:
        words = f"no address: its network {short(removed)} was removed"
        return replace(instance, host=None, reason=words), None, ""
    try:
        attachments = tuple(fixed.hold(leases, a, instance, host) for a in instance.attachments)
    except (Exhausted, InUse) as error:
        if instance.service is None and isinstance(error, InUse):
            raise
        return replace(instance, host=None, reason=f"no address: {error}"), None, ""
    for attachment in attachments:
        network = cluster.networks[attachment.network]
        try:
            leases.ensure(network, host, attachment)
        except Exhausted as error:
            return instance, network, str(error)
    return replace(instance, host=host, attachments=attachments), None, ""


def _unleased(instances: Iterable[Instance]) -> Explanation | None:
    reasons = [i.reason for i in instances if i.host is None]
    return Explanation(text=reasons[0]) if reasons else None
