"""The entries of the ingress network: hosts where services' ports are open, each with a number. Pure.

Every host that some service's port is wanted on becomes one, up to a bound: each host looks through a rule
for each entry. Invariants: two entries never have one number, nor does one whose block rests; an entry keeps
its number, for connections are marked with it.
"""

from __future__ import annotations

from msgspec.structs import replace

from controller import ingress
from controller.addressing import QUARANTINE, Leases, unique_local
from controller.plan import Item, Plan, put
from controller.snapshot import Cluster
from model.ids import HostId
from model.records import Network
from model.spec import Subnet
from net.returnpath import MOST_ENTRIES


def plan_ingress(cluster: Cluster, now: float, blocks: Plan | None = None) -> Plan:
    """The network itself where it is missing, what is to be done about its `blocks` anyway, and then its
    entries; asked again until nothing is left to do. Raises Exhausted."""
    if blocks is not None and blocks.items:
        return replace(blocks, retry_at=now)
    items = _missing(cluster, now)
    due = now if items else None if blocks is None else blocks.retry_at
    return Plan(items=items, retry_at=due)


def _missing(cluster: Cluster, now: float) -> tuple[Item, ...]:
    network = cluster.networks.get(ingress.NETWORK)
    if network is None:
        if not any(True for _ in ingress.publishing(cluster)):
            return ()
        return (put(ingress.network(cluster, now), "a service publishes a port"),)
    widened = _widened(cluster, network)
    items: list[Item] = [put(widened, "the fleet has IPv6 now")] if widened != network else []
    wanted = _wanted(cluster)
    leases = Leases(cluster, now)
    for host, number in _numbers(cluster, wanted).items():
        leases.ensure(widened, host)
        leases.number(widened, host, number)
    return (*items, *leases.items(), *_parted(cluster, wanted, now))


def _wanted(cluster: Cluster) -> list[HostId]:
    ports = {port for service in ingress.publishing(cluster) for port in service.ingress}
    filters = {port.on: port for port in ports}.values()
    return sorted(
        host.id for host in cluster.hosts.values() if any(ingress.admits(port, host) for port in filters)
    )


def _numbers(cluster: Cluster, wanted: list[HostId]) -> dict[HostId, int]:
    """Those that have a number keep it, then others get one, as far as numbers go."""
    blocks = cluster.blocks_of(ingress.NETWORK).values()
    used = {block.number for block in blocks if block.number}
    held = {block.host: block.number for block in blocks if block.number}
    found = {host: held[host] for host in wanted if host in held}
    free = (number for number in range(1, MOST_ENTRIES + 1) if number not in used)
    for host in wanted:
        if host not in found and len(found) < MOST_ENTRIES and (number := next(free, 0)):
            found[host] = number
    return found


def _parted(cluster: Cluster, wanted: list[HostId], now: float) -> list[Item]:
    """Hosts that are no entries any more: without an instance there they leave the network. A number rests
    with its block."""
    used = {i.host for i in cluster.on_network(ingress.NETWORK).values()}
    items: list[Item] = []
    for _, block in sorted(cluster.blocks_of(ingress.NETWORK).items()):
        if block.quarantined_until or block.host in wanted or block.host not in cluster.hosts:
            continue
        if block.host not in used:
            rests = replace(block, quarantined_until=now + QUARANTINE)
            items.append(put(rests, "no published port is open there, and no instance has one"))
        elif block.number:
            items.append(put(replace(block, number=0), "no published port is open there any more"))
    return items


def _widened(cluster: Cluster, network: Network) -> Network:
    """With IPv6 once another network has it. Instances get such an address when they are made anew."""
    spec = network.spec
    if spec.ipv6 or not ingress.wants_ipv6(cluster):
        return network
    more = Subnet(cidr=unique_local(cluster.settings.fleet_id, network.vni))
    return replace(network, spec=replace(spec, ipv6=True, subnets=(*spec.subnets, more)))
