"""Instances that wait on their host for an address: of which networks, and how full those are. Pure.

A host says of which networks it is short; it starts such an instance by itself once one comes free.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from controller.fullness import fullness
from controller.snapshot import Cluster
from model.ids import HostId, InstanceId, NetworkId
from model.records import Desired, Instance
from model.status import HostReport, InstanceStatus, Phase


def waiting_on(
    instance: Instance, status: InstanceStatus | None, reports: Mapping[HostId, HostReport]
) -> NetworkId | None:
    """The network of which its host has no address for it now, if that is what it waits for."""
    report = reports.get(instance.host) if instance.host is not None else None
    if report is None or instance.desired is not Desired.RUNNING:
        return None
    if status is None or status.phase is not Phase.PREPARING:
        return None
    return next((a.network for a in instance.attachments if a.network in report.short), None)


def shortages(
    cluster: Cluster,
    instances: Iterable[Instance],
    statuses: Mapping[InstanceId, InstanceStatus],
    reports: Mapping[HostId, HostReport],
    now: float,
) -> Iterable[str]:
    """One sentence for each network that some of these wait for."""
    found = (waiting_on(i, statuses.get(i.id), reports) for i in instances)
    for ident, count in sorted(Counter(n for n in found if n is not None).items()):
        if (network := cluster.networks.get(ident)) is None:
            continue
        blocks = tuple(cluster.blocks_of(ident).values())
        full = "; ".join(fullness(cluster, network, blocks, statuses, now))
        noun = "instance waits" if count == 1 else "instances wait"
        yield f"{count} {noun}: no address free in network {network.spec.name} ({full})"
