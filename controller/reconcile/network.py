"""Blocks of a network: those whose host is gone are quarantined, then free; hosts that ran out get more.
Fixed addresses are granted when they are given up elsewhere, and rest when nobody needs them. Pure."""

from __future__ import annotations

from collections.abc import Container, Mapping, Set

from msgspec.structs import replace

from controller.addressing import QUARANTINE, Leases, spans_hosts
from controller.fixed import REST, claims, needed, vacated
from controller.plan import Item, Plan, delete, put
from controller.snapshot import Cluster
from model.errors import Exhausted
from model.ids import HostId, NetworkId
from model.records import Block, Network
from model.status import HostReport, HostState

PATIENCE = 5.0
"""Seconds in which a host that got a block has found out, and says so if it is still short."""


def plan_network(
    cluster: Cluster,
    ident: NetworkId,
    now: float,
    short: Container[HostId] = (),
    reports: Mapping[HostId, HostReport] | None = None,
) -> Plan:
    """Quarantine blocks of removed hosts, free those whose quarantine has passed, settle fixed addresses, and
    lease one more block to each host that is `short` of addresses: to none that has fallen silent, as what it
    said last stands for ever."""
    items: list[Item] = []
    due: list[float] = []
    network = cluster.networks.get(ident)
    blocks = sorted(cluster.blocks_by_network.get(ident, {}).values(), key=lambda b: b.key)
    known = claims(cluster, ident) if any(block.holder for block in blocks) else frozenset()
    for block in blocks:
        if network is None:
            items.append(delete(block, "its network was removed"))
        elif block.quarantined_until and block.quarantined_until <= now:
            items.append(delete(block, "its quarantine has passed"))
        elif block.quarantined_until > now + QUARANTINE:
            sooner = replace(block, quarantined_until=now + QUARANTINE)
            items.append(put(sooner, "the clock was set back since its quarantine began"))
        elif block.quarantined_until:
            due.append(block.quarantined_until)
        elif block.holder:
            items += _settled(cluster, block, now, reports or {}, known)
        elif block.host not in cluster.hosts:
            until = now + QUARANTINE
            items.append(put(replace(block, quarantined_until=until), "its host was removed"))
            due.append(until)
    due += [i.record.quarantined_until for i in items if isinstance(i.record, Block) and not i.delete]
    if network is not None and spans_hosts(network):
        shares = [block for block in blocks if not block.holder]
        ready = (host for host in sorted({block.host for block in shares}) if _ready(cluster, host))
        wanting = [host for host in ready if host in short]
        more, again = _more(cluster, network, shares, wanting, now)
        items += more
        due += again
    return Plan(items=tuple(items), retry_at=min(filter(None, due), default=None))


def _ready(cluster: Cluster, host: HostId) -> bool:
    record = cluster.hosts.get(host)
    return record is not None and record.state is HostState.READY


def _settled(
    cluster: Cluster,
    lease: Block,
    now: float,
    reports: Mapping[HostId, HostReport],
    known: Set[tuple[str, str]],
) -> list[Item]:
    """What is to be done about a fixed address, if anything."""
    if not needed(cluster, lease, known):
        rests = replace(lease, quarantined_until=now + REST, awaits=None)
        return [put(rests, "nobody needs this address any more")]
    if lease.awaits is not None and vacated(cluster, lease, reports):
        name = cluster.host_name(lease.awaits)
        return [put(replace(lease, awaits=None), f"nobody on {name} has this address")]
    return []


def _more(
    cluster: Cluster, network: Network, shares: list[Block], wanting: list[HostId], now: float
) -> tuple[list[Item], list[float]]:
    """Blocks for those hosts, and when to look at them again. Where nothing is left they wait until somebody
    gives back: they ask again by themselves."""
    leases, again = Leases(cluster, now), list[float]()
    for host in wanting:
        times = (block.leased_at for block in shares if block.host == host)
        last = max((at for at in times if at <= now), default=0.0)  # none from before it was set back
        if last > now - PATIENCE:
            again.append(last + PATIENCE)
            continue
        try:
            leases.grow(network, host)
        except Exhausted:
            continue
    return list(leases.items()), again
