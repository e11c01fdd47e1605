"""Blocks of a network: those whose host is gone are quarantined, then free; hosts that ran out get more.
Pure."""

from __future__ import annotations

from collections.abc import Container

from msgspec.structs import replace

from controller.addressing import QUARANTINE, Leases, spans_hosts
from controller.plan import Item, Plan, delete, put
from controller.snapshot import Cluster
from model.errors import Exhausted
from model.ids import HostId, NetworkId
from model.records import Block, Network

PATIENCE = 5.0
"""Seconds in which a host that got a block has found out, and says so if it is still short."""


def plan_network(cluster: Cluster, ident: NetworkId, now: float, short: Container[HostId] = ()) -> Plan:
    """Quarantine blocks of removed hosts, free those whose quarantine has passed, and lease one more to each
    host that is `short` of addresses."""
    items: list[Item] = []
    due: list[float] = []
    network = cluster.networks.get(ident)
    blocks = sorted(cluster.blocks_by_network.get(ident, {}).values(), key=lambda b: b.key)
    for block in blocks:
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
    if network is not None and spans_hosts(network):
        wanting = [host for host in sorted({block.host for block in blocks}) if host in short]
        more, again = _more(cluster, network, blocks, wanting, now)
        items += more
        due += again
    return Plan(items=tuple(items), retry_at=min(due, default=None))


def _more(
    cluster: Cluster, network: Network, blocks: list[Block], wanting: list[HostId], now: float
) -> tuple[list[Item], list[float]]:
    """Blocks for those hosts, and when to look at them again. Where nothing is left they wait until somebody
    gives back: they ask again by themselves."""
    leases, again = Leases(cluster, now), list[float]()
    for host in wanting:
        last = max(block.leased_at for block in blocks if block.host == host)
        if last > now - PATIENCE:
            again.append(last + PATIENCE)
            continue
        try:
            leases.grow(network, host)
        except Exhausted:
            continue
    return list(leases.items()), again
