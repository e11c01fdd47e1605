"""Fixed addresses: each is leased by itself to one instance or replica, and goes with it. Pure.

A lease is a `Block` of one address with a holder. Invariants: a host gets a lease only once the instance that
had it is gone by its host's word, or that host is lost; one that lies within another host's share counts only
once that host has said that nobody there has it (`Block.awaits`). So no two hosts of the fleet hold it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import lru_cache

from msgspec.structs import replace

from controller.addressing import Leases, nobodys, spans_hosts
from controller.attachments import network_if_any
from controller.snapshot import Cluster
from model.addressranges import parse
from model.errors import Exhausted, InUse, InvalidInput
from model.ids import HostId, NetworkId, ServiceId
from model.records import Block, Desired, Host, Instance, Network, ResolvedAttachment, Service
from model.spec import Attachment, Global, NetworkSpec, Subnet
from model.status import Endpoint, HostReport, HostState
from net.spans import Span, minus, span_of
from net.subnets import Range, host_address, subnet_of

REST = 30.0
"""Seconds that an address which is nobody's any more rests, unless somebody asks for it by name."""


def holder_of(instance: Instance, host: HostId | None) -> str:
    """Whose its fixed addresses are: a plain container's own, a replica's, or a global service's there."""
    return f"{instance.service}/{instance.slot or host}" if instance.service is not None else instance.id


def address_of(spec: NetworkSpec, text: str, version: int, number: int) -> str:
    """The address of replica `number` among those listed, which skip what no endpoint can have. Raises
    InvalidInput for a list that is too short."""
    left = number - 1
    for first, last in _usable(spec.subnets, text, version):
        if left <= last - first:
            return _text(version, first + left)
        left -= last - first + 1
    raise InvalidInput(f"network {spec.name}: {text[:80]} has no address for replica {number}")


@lru_cache(maxsize=256)
def _usable(subnets: tuple[Subnet, ...], text: str, version: int) -> tuple[Span, ...]:
    """What endpoints can have of the addresses listed, in the list's order: the same for all its replicas."""
    wholes = [span_of(subnet.cidr) for subnet in subnets]
    barred = [_span(range_) for subnet in subnets for range_ in nobodys(subnet)]
    open_ = sorted(span for family, span in minus(wholes, barred) if family == version)
    listed = ((int(first), int(last)) for first, last in parse(text, version))
    cut = ((max(first, low), min(last, high)) for first, last in listed for low, high in open_)
    return tuple((low, high) for low, high in cut if low <= high)


def _span(range_: Range) -> tuple[int, Span]:
    return range_.version, (int(range_.network_address), int(range_.broadcast_address))


def _text(version: int, number: int) -> str:
    return str(ipaddress.IPv4Address(number) if version == 4 else ipaddress.IPv6Address(number))


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
    had = {_version(b.cidr): b.address for b in leases.held(network.id).of_holder(holder)}
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
    key = network.id, version
    if key not in leases.unheld:
        leases.unheld[key] = _unheld(leases, network, version)
    held = leases.held(network.id)
    for number in leases.unheld[key]:
        if not held.has(version, number):  # by what was leased since
            return _text(version, number)
    raise leases.exhausted(network)


def _unheld(leases: Leases, network: Network, version: int) -> Iterator[int]:
    """Addresses that nobody has now, and that no service lists."""
    subnets = [s for s in network.spec.subnets if _version(s.cidr) == version]
    barred = (span for subnet in subnets for _, span in map(_span, nobodys(subnet)))
    named = _named(leases.cluster, network, version)
    taken = sorted({*leases.held(network.id).spans(version), *named, *barred})
    for subnet in subnets:
        _, (at, end) = span_of(subnet.ip_range or subnet.cidr)
        for first, last in taken:
            yield from range(at, min(first, end + 1))
            at = max(at, last + 1)
        yield from range(at, end + 1)


def _named(cluster: Cluster, network: Network, version: int) -> Iterable[Span]:
    """What services list as their replicas'."""
    for service in cluster.services.values():
        for wish in service.spec.container.networks:
            text = wish.ipv4 if version == 4 else wish.ipv6
            if text and network_if_any(cluster, wish.network) == network:
                yield from ((int(first), int(last)) for first, last in parse(text, version))


def _hold(leases: Leases, network: Network, instance: Instance, host: HostId, address: str) -> None:
    subnet_of(network.spec, address)
    _refuse_leased(network)
    _refuse_held(leases, network, instance, host, address)
    if not spans_hosts(network):
        return
    if (owner := _own(leases).get(address)) is not None:
        raise InUse(f"address {address} of {network.spec.name} is host {owner.spec.name}'s own")
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


def _own(leases: Leases) -> Mapping[str, Host]:
    """Which host has which address of the underlay."""
    if leases.hosts is None:
        hosts = leases.cluster.hosts.values()
        leases.hosts = {a: host for host in hosts for a in (host.facts.address, *host.facts.addresses)}
    return leases.hosts


def _who_may_have(leases: Leases, network: Network, address: str, host: HostId) -> HostId | None:
    """The other host in whose share it is, if it can be asked. Raises Exhausted while that share rests."""
    single, held = ipaddress.ip_address(address), leases.held(network.id)
    block = held.share_around(single.version, int(single))
    if block is None:
        return None
    shares = (b.cidr for b in held.shares.values() if b.host == block.host)
    if address == host_address(subnet_of(network.spec, address), shares):
        name = leases.cluster.host_name(block.host)
        raise InUse(f"address {address} of {network.spec.name} is {name}'s own in this network")
    if block.quarantined_until > leases.now:
        raise Exhausted(f"address {address} of {network.spec.name} rests: its last host is gone")
    return None if block.host == host or gone(leases.cluster, block.host) else block.host


def _refuse_held(leases: Leases, network: Network, instance: Instance, host: HostId, address: str) -> None:
    """Raises Exhausted while it is held by who leaves, InUse when it is held by who stays."""
    cluster, holder = leases.cluster, holder_of(instance, host)
    for other in _holders(leases, network).get(address, ()):
        here = spans_hosts(network) or other.host == host
        if other.id == instance.id or not here:
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


def _holders(leases: Leases, network: Network) -> Mapping[str, Sequence[Instance]]:
    """Who has which address."""
    if network.id not in leases.holders:
        found: dict[str, list[Instance]] = {}
        for instance in leases.cluster.on_network(network.id).values():
            for address in _addresses(leases, network, instance):
                found.setdefault(address, []).append(instance)
        leases.holders[network.id] = found
    return leases.holders[network.id]


def _addresses(leases: Leases, network: Network, instance: Instance) -> Set[str]:
    """Those that it has, or will have when it starts. What is kept of a replica that has ended for good has
    given back what it wished for."""
    status = leases.statuses.get(instance.id)
    feet: tuple[Endpoint | ResolvedAttachment, ...] = status.endpoints if status is not None else ()
    ended = status is not None and status.phase.ended
    if instance.service is None or instance.desired is not Desired.STOPPED or not ended:
        feet = (*feet, *instance.attachments)
    return {address for foot in feet if foot.network == network.id for address in (foot.ipv4, foot.ipv6)}


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
