"""Addresses that the controller gives out: subnets from pools, VNIs, blocks of a subnet to hosts. Pure.

Invariant: two networks never overlap, two blocks of one network never overlap, and a block of a host that is
gone is not leased again before its quarantine has passed. Within its blocks a host's agent needs no one.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
from collections.abc import Iterable

import msgspec

from controller.plan import Item, put
from controller.snapshot import Cluster
from model.errors import Exhausted, InvalidInput
from model.ids import HostId, NetworkId
from model.records import Block, FleetSettings, Network
from model.spec import NetworkSpec, Subnet

IP = ipaddress.IPv4Network | ipaddress.IPv6Network
LOCAL_DRIVERS = frozenset({"bridge"})
"""Their subnet is each host's own; nothing is leased."""
MODES = ("host", "none")
BLOCK_BITS = 8
"""A block has at most 256 addresses."""
QUARANTINE = 60.0
"""Seconds before addresses of a host that is gone are used again: peers' caches and flows have ended."""
RESERVED = tuple(
    ipaddress.ip_network(cidr)
    for cidr in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")
)


def parse_subnet(cidr: str) -> IP:
    """Raises InvalidInput for anything that can't be a network's range."""
    try:
        network = ipaddress.ip_network(cidr)
    except ValueError as error:
        raise InvalidInput(f"invalid subnet {cidr[:60]!r}: {error}") from error
    if network.prefixlen == 0 or any(_overlap(network, other) for other in RESERVED):
        raise InvalidInput(f"subnet {cidr} is reserved", hint="Use a private range, for example 10.20.0.0/16")
    if network.version == 6 and (network.is_multicast or network.is_loopback or network.is_link_local):
        raise InvalidInput(f"subnet {cidr} is reserved", hint="Use a range of fd00::/8")
    if network.num_addresses < 8:
        raise InvalidInput(f"subnet {cidr} is too small", hint="A network needs 8 addresses at least")
    return network


def resolve_subnets(
    spec: NetworkSpec, cluster: Cluster, *, vni: int, hosts: Iterable[str] = ()
) -> tuple[Subnet, ...]:
    """The ranges of a new network: those asked for, checked against all others, or one from the pool.

    `hosts` are underlay addresses, which no range may contain. Raises InvalidInput, Exhausted.
    """
    taken = [
        (ipaddress.ip_network(subnet.cidr), network.spec.name)
        for network in cluster.networks.values()
        for subnet in network.spec.subnets
    ]
    avoid = [ipaddress.ip_address(address) for address in hosts if address]
    subnets = list(spec.subnets)
    for subnet in subnets:
        wanted = parse_subnet(subnet.cidr)
        for other, name in taken:
            if _overlap(wanted, other):
                raise InvalidInput(f"subnet {subnet.cidr} overlaps {other} of network {name}")
        for address in avoid:
            if address in wanted:
                raise InvalidInput(f"subnet {subnet.cidr} contains the host address {address}")
        taken.append((wanted, spec.name))
    if not any(ipaddress.ip_network(s.cidr).version == 4 for s in subnets):
        subnets.insert(0, Subnet(cidr=str(_from_pool(cluster.settings, [n for n, _ in taken], avoid))))
    if spec.ipv6 and not any(ipaddress.ip_network(s.cidr).version == 6 for s in subnets):
        subnets.append(Subnet(cidr=unique_local(cluster.settings.fleet_id, vni)))
    return tuple(subnets)


def unique_local(fleet_id: str, subnet: int) -> str:
    """A /64 out of the fleet's own random /40-odd of fd00::/8 (RFC 4193), by a number unique in the fleet."""
    seed = hashlib.sha256(f"flota/{fleet_id}".encode()).digest()[:4]
    return str(ipaddress.IPv6Network((b"\xfd" + seed + subnet.to_bytes(3, "big") + bytes(8), 64)))


def _from_pool(
    settings: FleetSettings, taken: list[IP], avoid: list[ipaddress.IPv4Address | ipaddress.IPv6Address]
) -> IP:
    for pool in map(ipaddress.ip_network, settings.address_pools):
        prefix = max(settings.subnet_prefix, pool.prefixlen)
        for subnet in pool.subnets(new_prefix=prefix):
            if not any(_overlap(subnet, other) for other in taken) and not any(a in subnet for a in avoid):
                return subnet
    raise Exhausted(
        f"no free /{settings.subnet_prefix} left in {', '.join(settings.address_pools)}",
        hint="Name a subnet with --subnet, or remove unused networks",
    )


def free_vni(cluster: Cluster) -> int:
    """The lowest number that no network has. Raises Exhausted."""
    taken = {network.vni for network in cluster.networks.values()}
    settings = cluster.settings
    for vni in range(settings.vni_first, settings.vni_last + 1):
        if vni not in taken:
            return vni
    raise Exhausted(f"all network numbers from {settings.vni_first} to {settings.vni_last} are taken")


def spans_hosts(network: Network) -> bool:
    """Whether hosts share its subnets, so that each needs blocks of them."""
    return network.spec.driver not in LOCAL_DRIVERS


class Leases:
    """The blocks of one decision: what is leased already, and what it adds. Lives as long as the decision."""

    def __init__(self, cluster: Cluster, now: float) -> None:
        self._cluster = cluster
        self._now = now
        self._changed: dict[str, Block] = {}
        self._reasons: dict[str, str] = {}

    def ensure(self, network: Network, host: HostId) -> None:
        """Have a block of each subnet of `network` for `host`. Raises Exhausted; then nothing was added."""
        if not spans_hosts(network):
            return
        added: list[Block] = []
        for subnet in network.spec.subnets:
            mine = [b for b in self._blocks(network.id) if b.host == host and _within(b.cidr, subnet.cidr)]
            if not mine:
                added.append(self._free_block(network, subnet, host))
            elif all(block.quarantined_until for block in mine):
                added += [_released(block) for block in mine]
        for block in added:
            self._changed[block.key] = block
            self._reasons[block.key] = f"{network.spec.name} is used on {self._cluster.host_name(host)}"

    def items(self) -> tuple[Item, ...]:
        return tuple(put(block, self._reasons[key]) for key, block in sorted(self._changed.items()))

    def _blocks(self, network: NetworkId) -> Iterable[Block]:
        known = {b.key: b for b in self._cluster.blocks_by_network.get(network, {}).values()}
        known.update({key: b for key, b in self._changed.items() if b.network == network})
        return known.values()

    def _free_block(self, network: Network, subnet: Subnet, host: HostId) -> Block:
        whole = ipaddress.ip_network(subnet.ip_range or subnet.cidr)
        taken = [ipaddress.ip_network(b.cidr) for b in self._blocks(network.id)]
        taken = [t for t in taken if t.version == whole.version]
        for prefix in range(block_prefix(whole, len(self._cluster.hosts)), whole.max_prefixlen + 1):
            found = _first_free(whole, prefix, taken)
            if found is not None:
                return Block(network=network.id, cidr=str(found), host=host, leased_at=self._now)
        self._reclaim(network)
        raise Exhausted(
            f"network {network.spec.name} has no addresses left in {whole}",
            hint="Remove instances from it, or make a network with a larger subnet",
        )

    def _reclaim(self, network: Network) -> None:
        """Take back what hosts hold without using it; it is free once its quarantine has passed."""
        used = {i.host for i in self._cluster.on_network(network.id).values()}
        for block in list(self._blocks(network.id)):
            if block.revision and block.host not in used and not block.quarantined_until:
                until = self._now + QUARANTINE
                self._changed[block.key] = msgspec.structs.replace(block, quarantined_until=until)
                self._reasons[block.key] = f"{network.spec.name} ran out of addresses, this block is unused"


def block_prefix(subnet: IP, hosts: int) -> int:
    """Prefix length of a host's share: twice as many blocks as hosts, 8 at least, 256 addresses each at
    most, 4 at least while the subnet has them."""
    bits = subnet.max_prefixlen - subnet.prefixlen
    shares = max(3, math.ceil(math.log2(max(1, 2 * hosts))))
    size = min(BLOCK_BITS, max(0, bits - shares)) if bits > 3 else 0
    return subnet.max_prefixlen - max(size, min(2, bits))


def _first_free(whole: IP, prefix: int, taken: list[IP]) -> IP | None:
    """The lowest aligned range of that size that meets no taken one, found by jumping over those."""
    if prefix < whole.prefixlen:
        return None
    size = 1 << (whole.max_prefixlen - prefix)
    spans = sorted((int(t.network_address), int(t.broadcast_address)) for t in taken)
    at, end = int(whole.network_address), int(whole.broadcast_address)
    for first, last in spans:
        if at + size - 1 < first:
            break
        if last >= at:
            at = (last // size + 1) * size
    if at + size - 1 > end:
        return None
    address = ipaddress.IPv4Address(at) if whole.version == 4 else ipaddress.IPv6Address(at)
    return ipaddress.ip_network(f"{address}/{prefix}")


def _released(block: Block) -> Block:
    return msgspec.structs.replace(block, quarantined_until=0.0)


def _within(cidr: str, subnet: str) -> bool:
    inner, outer = ipaddress.ip_network(cidr), ipaddress.ip_network(subnet)
    return inner.version == outer.version and _overlap(inner, outer)


def _overlap(a: IP, b: IP) -> bool:
    if isinstance(a, ipaddress.IPv4Network):
        return isinstance(b, ipaddress.IPv4Network) and a.overlaps(b)
    return isinstance(b, ipaddress.IPv6Network) and a.overlaps(b)
