"""Addresses that the controller gives out: subnets from pools, VNIs, blocks of a subnet to hosts. Pure.

Invariant: two networks never overlap, two blocks of one network never overlap, and a block of a host that is
gone is not leased again before its quarantine has passed. Within its blocks a host's agent needs no one.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from controller.fullness import fullness
from controller.held import Held
from controller.plan import Item, put
from controller.snapshot import Cluster, counts
from model.errors import Exhausted, InvalidInput
from model.ids import HostId, InstanceId, NetworkId
from model.netoptions import SITE_DRIVERS
from model.records import Block, Desired, Host, Instance, Network, ResolvedAttachment
from model.spec import NetworkSpec, Subnet
from model.status import InstanceStatus
from net import backend
from net.ipam import carve, free_subnet, overlap, parse_range, room
from net.subnets import Range, edges, ends, gateway

LARGER = "Make a network with a larger subnet"
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
    if spec.driver in SITE_DRIVERS:
        return _site_subnets(spec, cluster)
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


def _site_subnets(spec: NetworkSpec, cluster: Cluster) -> tuple[Subnet, ...]:
    """Of a network on the site's own: what hosts reach there is what it is about."""
    if not spec.subnets:
        raise InvalidInput(
            f"a {spec.driver} network needs the site's subnet",
            hint="Give --subnet and --gateway as they are there, --ip-range for a part that is ours alone",
        )
    if spec.ipv6 and not any(":" in subnet.cidr for subnet in spec.subnets):
        raise InvalidInput(f"a {spec.driver} network with --ipv6 needs the site's IPv6 subnet: --subnet")
    for subnet in spec.subnets:
        wanted = parse_range(subnet.cidr)
        gateway(subnet)
        for other, name in _taken(cluster):
            if overlap(wanted, other):
                raise InvalidInput(f"subnet {subnet.cidr} overlaps {other} of network {name}")
    return spec.subnets


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
    return backend.spans_hosts(network.spec.driver)


class Leases:
    """The blocks of one decision: what is leased already, and what it adds. Lives as long as the decision."""

    def __init__(
        self, cluster: Cluster, now: float, statuses: Mapping[InstanceId, InstanceStatus] | None = None
    ) -> None:
        """`statuses` are what hosts say: who has an address without having asked for it."""
        self.cluster = cluster
        self.now = now
        self.statuses: Mapping[InstanceId, InstanceStatus] = statuses or {}
        self._added: Counter[tuple[NetworkId, HostId]] = Counter()
        self._changed: dict[str, Block] = {}
        self._reasons: dict[str, str] = {}
        self._users: dict[NetworkId, Counter[HostId]] = {}
        self._held: dict[NetworkId, Held] = {}
        self._full: dict[NetworkId, str] = {}
        """Networks with nothing left to lease, and how that is said."""
        self.holders: dict[NetworkId, Mapping[str, Sequence[Instance]]] = {}
        """Who has which address, and whose the hosts' own are; `controller.fixed` looks once."""
        self.hosts: Mapping[str, Host] | None = None
        self.unheld: dict[tuple[NetworkId, int], Iterator[int]] = {}
        """Of a family, in order: what nobody had when it was asked for first."""

    def ensure(self, network: Network, host: HostId, attachment: ResolvedAttachment | None = None) -> None:
        """Have room on `host` for one more instance on `network`, in each of its subnets. Raises Exhausted;
        then nothing was added. None is needed for an attachment whose addresses are all fixed."""
        if network.spec.ipam == "dhcp":
            return
        fixed = attachment is not None and not draws(network, attachment)
        if not spans_hosts(network):
            if not fixed:
                self._ensure_here(network, host)
            return
        if fixed:
            self._carry(network, host)
            return
        name = self.cluster.host_name(host)
        users = self._counted(network)
        added: list[tuple[Block, str]] = []
        for subnet in network.spec.subnets:
            mine = self._mine(network.id, subnet, host)
            if not mine:
                block = self._free_block(network, subnet, host)
                added.append((block, f"{network.spec.name} is used on {name}"))
            elif all(block.quarantined_until for block in mine):
                added += [(_released(b), f"{network.spec.name} is used on {name}") for b in mine]
            elif users[host] >= self._room(network, mine):
                block = self._free_block(network, subnet, host)
                added.append((block, f"{users[host]} instances of {network.spec.name} fill {name}'s share"))
        for block, reason in added:
            self.put(block, reason)
        users[host] += 1

    def _carry(self, network: Network, host: HostId) -> None:
        """A share, if there is one left: the host's own address in the network is out of it."""
        reason = f"{network.spec.name} is used on {self.cluster.host_name(host)}"
        for subnet in network.spec.subnets:
            mine = self._mine(network.id, subnet, host)
            if mine and all(block.quarantined_until for block in mine):
                for block in mine:
                    self.put(_released(block), reason)
            elif not mine and (found := self._carved(network, subnet)) is not None:
                self.put(Block(network=network.id, cidr=found, host=host, leased_at=self.now), reason)

    def _ensure_here(self, network: Network, host: HostId) -> None:
        """As `ensure`, where the subnets are the host's own."""
        size = min((room(network.spec, s.cidr, (s.cidr,)) for s in network.spec.subnets), default=0)
        there, added = self.cluster.on_host(host), self._added[network.id, host]
        if len(there) + added >= size:  # else there is no need to count
            held = sum(self._holds(i, network.id) for i in there.values()) + added
            if held >= size:
                where = f"network {network.spec.name} on host {self.cluster.host_name(host)}"
                raise Exhausted(f"no address free in {where} ({held} are held)")
        self._added[network.id, host] += 1

    def _holds(self, instance: Instance, network: NetworkId) -> bool:
        """Whether it has an address there, as far as is known; one that was asked for is kept for it."""
        mine = [a for a in instance.attachments if a.network == network]
        status = self.statuses.get(instance.id)
        idle = not counts(instance) or instance.desired is Desired.CREATED
        over = idle or (status is not None and status.phase.ended and status.attempt >= instance.attempt)
        return any(a.ipv4 or a.ipv6 or not over for a in mine)

    def grow(self, network: Network, host: HostId) -> None:
        """One more block of each subnet for `host`, whose addresses are all held or rest. Raises Exhausted;
        then nothing was added."""
        added = [self._free_block(network, subnet, host) for subnet in network.spec.subnets]
        for block in added:
            name = self.cluster.host_name(host)
            self.put(block, f"{name} has no free address of {network.spec.name} left")

    def _counted(self, network: Network) -> Counter[HostId]:
        """How many instances each host has on the network that draw on its share, those of this decision
        included."""
        if network.id not in self._users:
            instances = self.cluster.on_network(network.id).values()
            hosts = (
                i.host
                for i in instances
                if i.host is not None
                and any(a.network == network.id and draws(network, a) for a in i.attachments)
            )
            self._users[network.id] = Counter(hosts)
        return self._users[network.id]

    def _mine(self, network: NetworkId, subnet: Subnet, host: HostId) -> list[Block]:
        shares = self.held(network).shares.values()
        return [b for b in shares if b.host == host and _within(b.cidr, subnet.cidr)]

    def _room(self, network: Network, blocks: Iterable[Block]) -> int:
        """How many instances these shares have addresses for; fixed ones within them are not theirs."""
        cidrs = [block.cidr for block in blocks if not block.quarantined_until]
        held = self.held(network.id)
        return sum(room(network.spec, cidr, cidrs) - held.singles_in(cidr) for cidr in cidrs)

    def number(self, network: Network, host: HostId, number: int) -> None:
        """Let the host's blocks of `network` carry this number."""
        for block in list(self.held(network.id)):
            if block.host == host and block.number != number:
                changed = msgspec.structs.replace(block, number=number)
                self.put(changed, f"published ports are open on {self.cluster.host_name(host)}")

    def put(self, block: Block, reason: str) -> None:
        self.held(block.network).put(block)
        self._changed[block.key] = block
        self._reasons[block.key] = reason

    def items(self) -> tuple[Item, ...]:
        return tuple(put(block, self._reasons[key]) for key, block in sorted(self._changed.items()))

    def held(self, network: NetworkId) -> Held:
        """Its blocks, those of this decision included."""
        if network not in self._held:
            self._held[network] = Held(self.cluster.blocks_of(network).values())
        return self._held[network]

    def block(self, network: NetworkId, cidr: str) -> Block | None:
        """The lease of exactly that range."""
        key = f"{network}/{cidr}"
        return self._changed.get(key) or self.cluster.blocks.get(key)

    def _free_block(self, network: Network, subnet: Subnet, host: HostId) -> Block:
        found = self._carved(network, subnet) if network.id not in self._full else None
        if found is None:
            if network.id not in self._full:
                self._reclaim(network)
                self._full[network.id] = self.exhausted(network).message
            raise Exhausted(self._full[network.id], hint=LARGER)
        return Block(network=network.id, cidr=found, host=host, leased_at=self.now)

    def _carved(self, network: Network, subnet: Subnet) -> str | None:
        try:
            return str(carve(subnet, len(self.cluster.hosts), self.held(network.id).ranges))
        except Exhausted:
            return None

    def exhausted(self, network: Network) -> Exhausted:
        """What to say where nothing is left, with how full each subnet is."""
        blocks = list(self.held(network.id))
        full = "; ".join(fullness(self.cluster, network, blocks, self.statuses, self.now))
        words = f"no address free in network {network.spec.name} ({full})"
        return Exhausted(words, hint=LARGER)

    def _reclaim(self, network: Network) -> None:
        """Take back what hosts hold without using it; it is free once its quarantine has passed."""
        used = {i.host for i in self.cluster.on_network(network.id).values()}
        for block in list(self.held(network.id)):
            idle = block.host not in used and not block.quarantined_until and not block.holder
            if block.revision and idle:
                changed = msgspec.structs.replace(block, quarantined_until=self.now + QUARANTINE)
                self.put(changed, f"{network.spec.name} ran out of addresses, this block is unused")


def draws(network: Network, attachment: ResolvedAttachment) -> bool:
    """Whether it needs an address out of its host's share, in any family."""
    if attachment.keep_address:
        return False
    fixed = {version for version, text in ((4, attachment.ipv4), (6, attachment.ipv6)) if text}
    return any(ipaddress.ip_network(subnet.cidr).version not in fixed for subnet in network.spec.subnets)


def nobodys(subnet: Subnet) -> Iterable[Range]:
    """What no endpoint of that subnet can have: its edges, its gateway, what is set aside for others."""
    for address in (*edges(ipaddress.ip_network(subnet.cidr)), gateway(subnet)):
        yield ipaddress.ip_network(address)
    for text in subnet.exclude:
        yield from ipaddress.summarize_address_range(*ends(text))


def _released(block: Block) -> Block:
    return msgspec.structs.replace(block, quarantined_until=0.0)


def _within(cidr: str, subnet: str) -> bool:
    inner, outer = ipaddress.ip_network(cidr), ipaddress.ip_network(subnet)
    return inner.version == outer.version and overlap(inner, outer)
