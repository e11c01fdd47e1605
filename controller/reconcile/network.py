"""Blocks whose host is gone: quarantined first, then free. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from controller.addressing import QUARANTINE
from controller.plan import Item, Plan, delete, put
from controller.snapshot import Cluster
from model.ids import NetworkId


def plan_network(cluster: Cluster, ident: NetworkId, now: float) -> Plan:
    """Quarantine blocks of removed hosts, and free those whose quarantine has passed."""
    items: list[Item] = []
    due: list[float] = []
    network = cluster.networks.get(ident)
    for block in sorted(cluster.blocks_by_network.get(ident, {}).values(), key=lambda b: b.key):
        if network is None:
            items.append(delete(block, "its network was removed"))
        elif block.quarantined_until and block.quarantined_until <= now:
            items.append(delete(block, "its quarantine has passed"))
        elif block.quarantined_until:
            due.append(block.quarantined_until)
        elif block.host not in cluster.hosts:
            until = now + QUARANTINE
            items.append(put(replace(block, quarantined_until=until), "its host was removed"))
            due.append(until)
    return Plan(items=tuple(items), retry_at=min(due, default=None))
