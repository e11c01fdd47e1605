"""Fixed addresses: each is leased by itself to one instance or replica, and goes with it. Pure.

A lease is a `Block` of one address with a holder. Invariants: a host gets a lease only once the instance that
had it is gone by its host's word, or that host is lost; one that lies within another host's share counts only
once that host has said that nobody there has it (`Block.awaits`). So no two hosts of the fleet hold it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Set
from itertools import islice

from msgspec.structs import replace

from controller.addressing import Leases, nobodys, spans_hosts
from controller.attachments import network_if_any
from controller.snapshot import Cluster
from model.addressranges import each, parse
from model.errors import Exhausted, InUse, InvalidInput
from model.ids import HostId, NetworkId, ServiceId
from model.records import Block, Desired, Instance, Network, ResolvedAttachment, Service
from model.spec import Attachment, Global, NetworkSpec
from model.status import HostReport, HostState
from net.ipam import check_address, free_range, overlap
from net.subnets import Range, host_address, subnet_of

REST = 30.0
"""Seconds that an address which is nobody's any more rests, unless somebody asks for it by name."""


MOST_BARRED = 1024
"""Addresses in a list that no endpoint can have, of which so many are skipped."""


def holder_of(instance: Instance, host: HostId | None) -> str:
    """Whose its fixed addresses are: a plain container's own, a replica's, or a global service's there."""
    return f"{instance.service}/{instance.slot or host}" if instance.service is not None else instance.id


def address_of(spec: NetworkSpec, text: str, version: int, number: int) -> str:
    """The address of replica `number` among those listed, which skip what no endpoint can have. Raises
    InvalidInput for a list that is too short."""
    left = number
    for address in islice(each(parse(text, version)), number + MOST_BARRED):
        if usable(spec, str(address)) and not (left := left - 1):
            return str(address)
    raise InvalidInput(f"network {spec.name}: {text[:80]} has no address for replica {number}")


def usable(spec: NetworkSpec, address: str) -> bool:
    try:
        check_address(spec, address)
    except InvalidInput:
        return False
    return True


def of_replica(
    cluster: Cluster, attachments: Iterable[ResolvedAttachment], slot: int
) -> tuple[ResolvedAttachment, ...]:
    """Attachments of a service with the addresses of one replica. Raises InvalidInput."""
    found = []
    for a in attachments:
        spec = cluster.networks[a.network].spec
        four = address_of(spec, a.ipv4, 4, slot) if a.ipv4 else ""
        six = address_of(spec, a.ipv6, 6, slot) if a.ipv6 else ""
        found.append(replace(a, ipv4=four, ipv6=six))
    return tuple(found)


def hold(
    leases: Leases, attachment: ResolvedAttachment, instance: Instance, host: HostId
) -> ResolvedAttachment:
    """Have its fixed addresses on that network led to `host`; those it keeps are chosen here if they never
    were. Raises InvalidInput (in no subnet), InUse (somebody else's), Exhausted (wait)."""
    network = leases.cluster.networks[attachment.network]
    if attachment.keep_address and not (attachment.ipv4 or attachment.ipv6):
        attachment = _kept(leases, network, attachment, holder_of(instance, host))
    for address in filter(None, (attachment.ipv4, attachment.ipv6)):
        _hold(leases, network, instance, host, address)
    return attachment


def _kept(
    leases: Leases, network: Network, attachment: ResolvedAttachment, holder: str
) -> ResolvedAttachment:
    _refuse_leased(network)
    if not spans_hosts(network):
        raise InvalidInput(f"network {network.spec.name} is each host's own: addresses can't be kept on it")
    had = {_version(b.cidr): b.address for b in leases.blocks(network.id) if b.holder == holder}
    versions = {_version(subnet.cidr) for subnet in network.spec.subnets}
    found = {v: had.get(v) or _free(leases, network, v) for v in sorted(versions)}
    return replace(attachment, ipv4=found.get(4, ""), ipv6=found.get(6, ""))


def _refuse_leased(network: Network) -> None:
    if network.spec.ipam == "dhcp":
        raise InvalidInput(
            f"addresses of {network.spec.name} are its DHCP server's to give",
            hint="Reserve one there for the container's MAC: --network name=…,mac-address=…",
        )


def _free(leases: Leases, network: Network, version: int) -> str:
    taken = [ipaddress.ip_network(block.cidr) for block in leases.blocks(network.id)]
    taken += _named(leases.cluster, network, version)
    for subnet in network.spec.subnets:
        whole = ipaddress.ip_network(subnet.ip_range or subnet.cidr)
        if whole.version == version:
            found = free_range(whole, whole.max_prefixlen, [*taken, *nobodys(subnet)])
            if found is not None:
                return str(found.network_address)
    raise leases.exhausted(network)


def _named(cluster: Cluster, network: Network, version: int) -> Iterable[Range]:
    """What services list as their replicas'."""
    for service in cluster.services.values():
        for wish in service.spec.container.networks:
            text = wish.ipv4 if version == 4 else wish.ipv6
            if text and network_if_any(cluster, wish.network) == network:
                for first, last in parse(text, version):
                    yield from ipaddress.summarize_address_range(first, last)


def _hold(leases: Leases, network: Network, instance: Instance, host: HostId, address: str) -> None:
    subnet_of(network.spec, address)
    _refuse_leased(network)
    _refuse_held(leases, network, instance, host, address)
    if not spans_hosts(network):
        return
    for other in leases.cluster.hosts.values():
        if address in (other.facts.address, *other.facts.addresses):
            raise InUse(f"address {address} of {network.spec.name} is host {other.spec.name}'s own")
    cluster, holder = leases.cluster, holder_of(instance, host)
    single = ipaddress.ip_network(address)
    found = leases.block(network.id, str(single))
    others = found is not None and found.holder not in ("", holder)
    if found is not None and others and needed(cluster, found, claims(cluster, network.id)):
        whose = _words(cluster, found)
        raise InUse(f"address {address} of {network.spec.name} is kept for {whose}")
    if found is not None and (found.holder, found.host, found.quarantined_until) == (holder, host, 0.0):
        return
    lease = Block(
        network=network.id,
        cidr=str(single),
        host=host,
        leased_at=leases.now,
        holder=holder,
        awaits=_who_may_have(leases, network, address, host),
        revision=found.revision if found is not None else 0,
    )
    leases.put(lease, f"{instance.name} has this address, on {cluster.host_name(host)}")


def _who_may_have(leases: Leases, network: Network, address: str, host: HostId) -> HostId | None:
    """The other host in whose share it is, if it can be asked. Raises Exhausted while that share rests."""
    single = ipaddress.ip_network(address)
    for block in leases.blocks(network.id):
        if block.holder or not overlap(ipaddress.ip_network(block.cidr), single):
            continue
        shares = (b.cidr for b in leases.blocks(network.id) if b.host == block.host and not b.holder)
        if address == host_address(subnet_of(network.spec, address), shares):
            name = leases.cluster.host_name(block.host)
            raise InUse(f"address {address} of {network.spec.name} is {name}'s own in this network")
        if block.quarantined_until > leases.now:
            raise Exhausted(f"address {address} of {network.spec.name} rests: its last host is gone")
        return None if block.host == host or gone(leases.cluster, block.host) else block.host
    return None


def _refuse_held(leases: Leases, network: Network, instance: Instance, host: HostId, address: str) -> None:
    """Raises Exhausted while it is held by who leaves, InUse when it is held by who stays."""
    cluster, holder = leases.cluster, holder_of(instance, host)
    for other in cluster.on_network(network.id).values():
        here = spans_hosts(network) or other.host == host
        if other.id == instance.id or not here or not _holds(leases, network, other, address):
            continue
        same = instance.service is not None and holder_of(other, other.host) == holder
        leaving = other.desired is Desired.REMOVED
        if other.host is None or (gone(cluster, other.host) and (same or leaving)):
            continue
        if same or leaving:
            where = cluster.host_name(other.host)
            raise Exhausted(f"address {address} is still held by {other.name} on {where}")
        raise InUse(
            f"address {address} of {network.spec.name} belongs to {other.name}", hint="Choose another address"
        )


def _holds(leases: Leases, network: Network, instance: Instance, address: str) -> bool:
    """Whether it has the address, or will when it starts. What is kept of a replica that has ended for good
    has given it back."""
    status = leases.statuses.get(instance.id)
    feet = status.endpoints if status is not None else ()
    if any(foot.network == network.id and address in (foot.ipv4, foot.ipv6) for foot in feet):
        return True
    ended = status is not None and status.phase.ended
    if instance.service is not None and instance.desired is Desired.STOPPED and ended:
        return False
    wishes = (a for a in instance.attachments if a.network == network.id)
    return any(address in (a.ipv4, a.ipv6) for a in wishes)


def gone(cluster: Cluster, host: HostId | None) -> bool:
    """Whether what runs there counts as gone."""
    record = cluster.hosts.get(host) if host is not None else None
    return record is None or record.state is HostState.LOST


def claims(cluster: Cluster, network: NetworkId) -> Set[tuple[str, str]]:
    """(holder, address) of all instances on that network which are there, or may be started again."""
    return {
        (holder_of(instance, instance.host), address)
        for instance in cluster.on_network(network).values()
        if instance.service is None or instance.desired is not Desired.STOPPED
        if instance.desired is not Desired.REMOVED or not gone(cluster, instance.host)
        for a in instance.attachments
        for address in (a.ipv4, a.ipv6)
        if a.network == network and address
    }


def needed(cluster: Cluster, lease: Block, known: Set[tuple[str, str]]) -> bool:
    """Whether its holder is there, or may come back to it. `known` are the network's `claims`."""
    if (lease.holder, lease.address) in known:
        return True
    ident, _, seat = lease.holder.partition("/")
    service = cluster.services.get(ServiceId(ident)) if seat else None
    if service is None or service.removed:
        return False
    return any(_wishes(cluster, service, wish, lease, seat) for wish in service.spec.container.networks)


def _wishes(cluster: Cluster, service: Service, wish: Attachment, lease: Block, seat: str) -> bool:
    network, mode = network_if_any(cluster, wish.network), service.spec.mode
    if network is None or network.id != lease.network:
        return False
    if isinstance(mode, Global):
        return wish.keep_address and seat in cluster.hosts
    known = seat.isdecimal() and int(seat) <= mode.replicas
    return known and (wish.keep_address or _listed(network.spec, wish, lease.address, int(seat)))


def _listed(spec: NetworkSpec, wish: Attachment, address: str, number: int) -> bool:
    version = _version(address)
    text = wish.ipv4 if version == 4 else wish.ipv6
    try:
        return bool(text) and address_of(spec, text, version, number) == address
    except InvalidInput:
        return False


def vacated(cluster: Cluster, lease: Block, reports: Mapping[HostId, HostReport]) -> bool:
    """Whether the host that it awaits has no say in it any more, or has said that nobody there has it."""
    host = lease.awaits
    if host is None or gone(cluster, host):
        return True
    shares = cluster.blocks_by_host.get(host, {}).values()
    carries = any(b.network == lease.network for b in shares)
    carries = carries or any(i.host == host for i in cluster.on_network(lease.network).values())
    report = reports.get(host)
    return not carries or (report is not None and token(lease) in report.vacated)


def mark(lease: Block) -> str:
    """Tells one lease of an address from the next."""
    return f"{lease.leased_at:.6f}"


def token(lease: Block) -> str:
    """By which a host says that nobody there has the address."""
    return f"{lease.network}/{lease.address}/{mark(lease)}"


def _words(cluster: Cluster, lease: Block) -> str:
    ident, _, seat = lease.holder.partition("/")
    service = cluster.services.get(ServiceId(ident))
    if service is None:
        return "another container"
    return f"{'replica' if seat.isdecimal() and len(seat) < 9 else 'host'} {seat[:12]} of {service.spec.name}"


def _version(cidr: str) -> int:
    return 6 if ":" in cidr else 4
