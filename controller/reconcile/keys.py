"""Keys of encrypted networks: which generations there are, and by which hosts send. Pure.

Invariant: a step is taken only when every carrier that is not lost has said that the one before is done, so
that whoever sends by a key sends to hosts that know it (`model.tunnels`). One that is lost is nobody's peer
meanwhile; it gets all of it with its next View. And no two hosts have the same key of a network: who copied
one would get what is for the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from msgspec.structs import replace

from controller.plan import Plan, merged, put
from controller.snapshot import Cluster
from controller.views import standing
from model.events import Event
from model.ids import HostId, NetworkId
from model.netoptions import encrypted, rekey_after
from model.records import Host, Network
from model.status import HostReport, HostState
from model.tunnels import KeyPhase, TunnelEnd, TunnelReport, end_fault, end_of, keys_digest

NOTHING = TunnelReport()


Ends = Mapping[NetworkId, tuple[TunnelEnd, ...]]


def plan_ends(cluster: Cluster, host: HostId, tunnels: Mapping[NetworkId, TunnelReport]) -> Plan:
    """Record what `host` says of its own ends."""
    record = cluster.hosts.get(host)
    if record is None:
        return Plan()
    ends, _ = own_ends(cluster, record, tunnels)
    if record.tunnels == ends:
        return Plan()
    return Plan(items=(put(replace(record, tunnels=ends), f"{record.spec.name} told its keys"),))


def own_ends(
    cluster: Cluster, host: Host, tunnels: Mapping[NetworkId, TunnelReport]
) -> tuple[Ends, tuple[str, ...]]:
    """Those ends that can be the host's, and what was left out, in words: others send by them."""
    found: dict[NetworkId, tuple[TunnelEnd, ...]] = {}
    words: list[str] = []
    for ident, told in tunnels.items():
        network = cluster.networks.get(ident)
        if network is None or not encrypted(network.spec.options):
            continue
        if told.ends == host.tunnels.get(ident, ()):
            found[ident] = told.ends
            continue
        others = {e.key for h in cluster.hosts.values() if h.id != host.id for e in h.tunnels.get(ident, ())}
        good: dict[int, TunnelEnd] = {}
        for end in told.ends:
            if fault := _fault(network, end, others):
                words.append(f"its end of {network.spec.name} is left out: {fault}")
            else:
                good.setdefault(end.generation, end)
        found[ident] = tuple(good.values())
    return found, tuple(words)


def _fault(network: Network, end: TunnelEnd, others: Set[str]) -> str:
    keys = network.keys
    if not keys.oldest <= end.generation <= keys.newest:
        return f"there is no generation {end.generation} of its keys"
    return end_fault(end) or ("another host has that key" if end.key in others else "")


def next_keys(network: Network, reason: str, now: float) -> Plan:
    """Let hosts make one more generation."""
    phase = replace(network.keys, newest=network.keys.newest + 1)
    name = network.spec.name
    event = Event(type="network", action="rotate", id=network.id, name=name, at=now)
    fresh = replace(network, keys=phase, keyed_at=now)
    return Plan(items=(put(fresh, f"new keys: {reason}"),), events=(event,), subject=network.id)


def plan_keys(
    cluster: Cluster, ident: NetworkId, reports: Mapping[HostId, HostReport], now: float, other: Plan
) -> Plan:
    """`other`, and the next step of this network's keys if it is due."""
    network = cluster.networks.get(ident)
    if network is None or not encrypted(network.spec.options):
        return other
    carriers = list(_carriers(cluster, ident))
    told = {h.id: reports[h.id].tunnels.get(ident, NOTHING) if h.id in reports else NOTHING for h in carriers}
    phase = network.keys
    if phase.sending < phase.newest and _all_met(ident, phase.newest, carriers, told):
        moved = replace(network, keys=replace(phase, sending=phase.newest))
        return merged((other, Plan(items=(put(moved, "all hosts know the new keys"),))))
    if phase.oldest < phase.sending == phase.newest and all(r.sends == phase.sending for r in told.values()):
        alone = KeyPhase(oldest=phase.sending, sending=phase.sending, newest=phase.newest)
        done = replace(network, keys=alone)
        return merged((other, Plan(items=(put(done, "all hosts send by the new keys"),))))
    every = rekey_after(network.spec.options)
    if not every or phase.oldest != phase.newest:
        return other
    due = network.keyed_at + every
    if due <= now:
        return merged((other, next_keys(network, "they are old", now)))
    return replace(other, retry_at=min(due, other.retry_at if other.retry_at is not None else due))


def _carriers(cluster: Cluster, ident: NetworkId) -> Iterable[Host]:
    """Hosts whose peers count with them."""
    holders = {b.host for b in cluster.blocks_of(ident).values() if standing(b)}
    known = (cluster.hosts.get(host) for host in sorted(holders))
    return (host for host in known if host is not None and host.state is not HostState.LOST)


def _all_met(
    ident: NetworkId, generation: int, carriers: Iterable[Host], told: Mapping[HostId, TunnelReport]
) -> bool:
    keys: dict[HostId, str] = {}
    for host in carriers:
        end = end_of(host.tunnels.get(ident, ()), generation)
        if end is None:
            return False
        keys[host.id] = end.key
    return all(
        told[host].met == keys_digest(generation, (k for other, k in keys.items() if other != host))
        for host in keys
    )
