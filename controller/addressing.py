"""Addresses that the controller gives out: subnets from pools, VNIs, blocks of a subnet to hosts. Pure.

Invariant: two networks never overlap, two blocks of one network never overlap, and a block of a host that is
gone is not leased again before its quarantine has passed. Within its blocks a host's agent needs no one.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections import Counter
from collections.abc import Iterable

import msgspec

from controller.plan import Item, put
from controller.snapshot import Cluster
from model.errors import Exhausted, InUse, InvalidInput
from model.ids import HostId, NetworkId
from model.records import Block, Host, Network
from model.spec import NetworkSpec, Subnet
from net.ipam import carve, free_subnet, overlap, parse_range, room
from net.subnets import Range, gateway, subnet_of

LOCAL_DRIVERS = frozenset({"bridge"})
"""Their subnet is each host's own; nothing is leased."""
VIP_BITS = 4
"""Services' addresses are a sixteenth of a subnet of the usual size."""
QUARANTINE = 60.0
"""Seconds before addresses of a host that is gone are used again: peers' caches and flows have ended."""


def resolve_subnets(
    spec: NetworkSpec, cluster: Cluster, *, vni: int, hosts: Iterable[Host] = ()
) -> tuple[Subnet, ...]:
    """The ranges of a new network: those asked for, checked against all others, or one from the pool.

    No range may contain the address of one of the `hosts`, nor take what they reach already: one of the pool
    meets none of it; one that was asked for may lie within what is behind a gateway, as its exception. Raises
    InvalidInput, Exhausted.
    """
    known = tuple(hosts)
    taken = _taken(cluster)
    avoid = [ipaddress.ip_address(host.facts.address) for host in known if host.facts.address]
    subnets = list(spec.subnets)
    for subnet in subnets:
        wanted = parse_range(subnet.cidr)
        gateway(subnet)
        for other, name in taken:
            if overlap(wanted, other):
                raise InvalidInput(f"subnet {subnet.cidr} overlaps {other} of network {name}")
        for address in avoid:
            if address in wanted:
                raise InvalidInput(f"subnet {subnet.cidr} contains the host address {address}")
        _check_routes(wanted, known)
        taken.append((wanted, spec.name))
    if not any(ipaddress.ip_network(s.cidr).version == 4 for s in subnets):
        settings = cluster.settings
        avoided = [*(whole for whole, _ in taken), *_reached(known)]
        found = free_subnet(settings.address_pools, settings.subnet_prefix, avoided)
        subnets.insert(0, Subnet(cidr=str(found)))
    if spec.ipv6 and not any(ipaddress.ip_network(s.cidr).version == 6 for s in subnets):
        subnets.append(Subnet(cidr=unique_local(cluster.settings.fleet_id, vni)))
    return tuple(subnets)


def vip_ranges(
    subnets: Iterable[Subnet], cluster: Cluster, *, vni: int, hosts: Iterable[Host] = ()
) -> tuple[str, ...]:
    """The ranges for services' addresses of a new network with these subnets: of IPv4 a sixteenth of a usual
    subnet, out of the pool. Raises Exhausted."""
    wholes = [ipaddress.ip_network(subnet.cidr) for subnet in subnets]
    settings, found = cluster.settings, []
    if any(whole.version == 4 for whole in wholes):
        avoided = [*wholes, *(whole for whole, _ in _taken(cluster))]
        avoided += _reached(hosts)
        prefix = min(settings.subnet_prefix + VIP_BITS, 29)
        found.append(str(free_subnet(settings.address_pools, prefix, avoided)))
    if any(whole.version == 6 for whole in wholes):
        found.append(unique_local(f"{settings.fleet_id}/services", vni))
    return tuple(found)


def _reached(hosts: Iterable[Host]) -> Iterable[Range]:
    """What hosts have addresses in and routes to."""
    for host in hosts:
        for text in (host.facts.address, *host.facts.links, *host.facts.routes):
            if text:
                yield ipaddress.ip_network(text)


def _taken(cluster: Cluster) -> list[tuple[Range, str]]:
    """Ranges in use, each with the name of its network."""
    return [
        (ipaddress.ip_network(cidr), network.spec.name)
        for network in cluster.networks.values()
        for cidr in (*(subnet.cidr for subnet in network.spec.subnets), *network.vip_ranges)
    ]


def _check_routes(wanted: Range, hosts: Iterable[Host]) -> None:
    for host in hosts:
        for text in (*host.facts.links, *host.facts.routes):
            range_ = ipaddress.ip_network(text)
            within = text in host.facts.routes and range_.prefixlen < wanted.prefixlen
            if overlap(wanted, range_) and not within:
                raise InvalidInput(
                    f"subnet {wanted} overlaps {text}, which {host.spec.name} has a route to",
                    hint="Choose a range that nobody uses",
                )


def unique_local(fleet_id: str, subnet: int) -> str:
    """A /64 out of the fleet's own random /40-odd of fd00::/8 (RFC 4193), by a number unique in the fleet."""
    seed = hashlib.sha256(f"flota/{fleet_id}".encode()).digest()[:4]
    return str(ipaddress.IPv6Network((b"\xfd" + seed + subnet.to_bytes(3, "big") + bytes(8), 64)))


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
        self._users: dict[NetworkId, Counter[HostId]] = {}

    def ensure(self, network: Network, host: HostId) -> None:
        """Have room on `host` for one more instance on `network`, in each of its subnets. Raises Exhausted;
        then nothing was added."""
        if not spans_hosts(network):
            return
        name = self._cluster.host_name(host)
        users = self._counted(network.id)
        added: list[tuple[Block, str]] = []
        for subnet in network.spec.subnets:
            mine = self._mine(network.id, subnet, host)
            if not mine:
                block = self._free_block(network, subnet, host)
                added.append((block, f"{network.spec.name} is used on {name}"))
            elif all(block.quarantined_until for block in mine):
                added += [(_released(b), f"{network.spec.name} is used on {name}") for b in mine]
            elif users[host] >= _room(network, mine):
                block = self._free_block(network, subnet, host)
                added.append((block, f"{users[host]} instances of {network.spec.name} fill {name}'s share"))
        for block, reason in added:
            self._changed[block.key] = block
            self._reasons[block.key] = reason
        users[host] += 1

    def grow(self, network: Network, host: HostId) -> None:
        """One more block of each subnet for `host`, whose addresses are all held or rest. Raises
        Exhausted."""
        for subnet in network.spec.subnets:
            block = self._free_block(network, subnet, host)
            self._changed[block.key] = block
            name = self._cluster.host_name(host)
            self._reasons[block.key] = f"{name} has no free address of {network.spec.name} left"

    def _counted(self, network: NetworkId) -> Counter[HostId]:
        """How many instances each host has on the network, those of this decision included."""
        if network not in self._users:
            hosts = (i.host for i in self._cluster.on_network(network).values() if i.host is not None)
            self._users[network] = Counter(hosts)
        return self._users[network]

    def _mine(self, network: NetworkId, subnet: Subnet, host: HostId) -> list[Block]:
        return [b for b in self._blocks(network) if b.host == host and _within(b.cidr, subnet.cidr)]

    def number(self, network: Network, host: HostId, number: int) -> None:
        """Let the host's blocks of `network` carry this number."""
        for block in list(self._blocks(network.id)):
            if block.host == host and block.number != number:
                self._changed[block.key] = msgspec.structs.replace(block, number=number)
                self._reasons[block.key] = f"published ports are open on {self._cluster.host_name(host)}"

    def fix(self, network: Network, host: HostId, address: str) -> None:
        """Have `address` routed to `host`: it is in a block of the host, or becomes one by itself.

        Raises InvalidInput (in no subnet), InUse (another instance's, or within another host's share)."""
        subnet_of(network.spec, address)
        for instance in self._cluster.on_network(network.id).values():
            here = spans_hosts(network) or instance.host == host
            if here and any(
                a.network == network.id and address in (a.ipv4, a.ipv6) for a in instance.attachments
            ):
                raise InUse(f"address {address} of {network.spec.name} belongs to {instance.name}")
        if not spans_hosts(network):
            return
        single = ipaddress.ip_network(address)
        for block in self._blocks(network.id):
            if not overlap(ipaddress.ip_network(block.cidr), single):
                continue
            if block.host == host:
                return
            name = self._cluster.host_name(block.host)
            raise InUse(
                f"address {address} of {network.spec.name} is in the share of {name}",
                hint=f"Run it there with --node {name}, or choose an address that no host has yet",
            )
        lone = Block(network=network.id, cidr=str(single), host=host, leased_at=self._now)
        self._changed[lone.key] = lone
        self._reasons[lone.key] = f"address {address} was asked for"

    def items(self) -> tuple[Item, ...]:
        return tuple(put(block, self._reasons[key]) for key, block in sorted(self._changed.items()))

    def _blocks(self, network: NetworkId) -> Iterable[Block]:
        known = {b.key: b for b in self._cluster.blocks_by_network.get(network, {}).values()}
        known.update({key: b for key, b in self._changed.items() if b.network == network})
        return known.values()

    def _free_block(self, network: Network, subnet: Subnet, host: HostId) -> Block:
        taken = [ipaddress.ip_network(block.cidr) for block in self._blocks(network.id)]
        try:
            found = carve(subnet, len(self._cluster.hosts), taken)
        except Exhausted as error:
            self._reclaim(network)
            raise Exhausted(f"network {network.spec.name}: {error.message}", hint=error.hint) from error
        return Block(network=network.id, cidr=str(found), host=host, leased_at=self._now)

    def _reclaim(self, network: Network) -> None:
        """Take back what hosts hold without using it; it is free once its quarantine has passed."""
        used = {i.host for i in self._cluster.on_network(network.id).values()}
        for block in list(self._blocks(network.id)):
            if block.revision and block.host not in used and not block.quarantined_until:
                until = self._now + QUARANTINE
                self._changed[block.key] = msgspec.structs.replace(block, quarantined_until=until)
                self._reasons[block.key] = f"{network.spec.name} ran out of addresses, this block is unused"


def _room(network: Network, blocks: Iterable[Block]) -> int:
    cidrs = [block.cidr for block in blocks if not block.quarantined_until]
    return sum(room(network.spec, cidr, cidrs) for cidr in cidrs)


def _released(block: Block) -> Block:
    return msgspec.structs.replace(block, quarantined_until=0.0)


def _within(cidr: str, subnet: str) -> bool:
    inner, outer = ipaddress.ip_network(cidr), ipaddress.ip_network(subnet)
    return inner.version == outer.version and overlap(inner, outer)
