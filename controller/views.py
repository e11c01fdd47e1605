"""The View of one host: all it needs, and nothing else. Pure.

Invariant: a host's View is a function of the Cluster, and `affected` names every host whose View a change can
alter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from immutables import Map

from controller import ingress
from controller.addressing import spans_hosts
from controller.fixed import mark
from controller.keptimages import kept
from controller.parents import site_parent
from controller.policies import selecting_on
from controller.snapshot import Change, Cluster
from controller.vips import same_addresses
from model.ids import HostId, InstanceId, NetworkId, ServiceId
from model.netoptions import SITE_DRIVERS
from model.records import Block, FleetSettings, Host, Instance, Network, Policy, Service
from model.status import HostState
from model.view import NetworkPeer, NetworkView, Peer, ServiceView, View, service_key
from net.host import PREDEFINED_BRIDGE
from net.spans import lies_in, span_of

_NO_SERVICES: Map[ServiceId, Service] = Map()


def view_of(cluster: Cluster, host: HostId) -> View:
    """What the agent of `host` should know at this revision."""
    settings = cluster.settings
    instances = dict(cluster.on_host(host).items())
    networks = {network: _network(cluster, network, host) for network in _carried(cluster, host)}
    met = {peer.host for network in networks.values() for peer in network.peers}
    return View(
        revision=cluster.revision,
        fleet_id=settings.fleet_id,
        vxlan_port=settings.vxlan_port,
        source_ports=settings.source_ports,
        security_profile=settings.security_profile,
        address_pools=settings.address_pools,
        instances=instances,
        networks=networks,
        peers={peer: _peer(cluster.hosts[peer]) for peer in sorted(met)},
        services={
            service_key(network, service.id): found
            for network in networks
            for service in cluster.services_on.get(network, _NO_SERVICES).values()
            if (found := _service(cluster, service, network, host)) is not None
        },
        policies=selecting_on(cluster, host),
        judged=bool(cluster.policies),
        keeping=settings.images,
        build_cache=settings.build_cache,
        kept_images=cluster.kept_images,
    )


def affected(cluster: Cluster, change: Change) -> set[HostId] | None:
    """The hosts whose View may differ after `change`; None for all."""
    hosts: set[HostId] = set()
    for record in (change.old, change.new):
        if isinstance(record, Instance) and record.host is not None:
            hosts.add(record.host)
        elif isinstance(record, Block):
            hosts |= {record.host, *_holders(cluster, record.network)}
            hosts |= {record.awaits} if record.awaits is not None else set()
        elif isinstance(record, Network):
            hosts |= carriers(cluster, record.id)
        elif isinstance(record, FleetSettings | Policy):
            return None
    if isinstance(change.old, Service) or isinstance(change.new, Service):
        return None if _keeps_others(cluster, change) else _told_of(cluster, change)
    if isinstance(change.old, Host) or isinstance(change.new, Host):
        return hosts | _met_by(cluster, change)
    return hosts


def _met_by(cluster: Cluster, change: Change) -> set[HostId]:
    """Peers see a host's name, addresses and whether it is lost; its other fields change no View but its
    own."""
    old, new = change.old, change.new
    same = isinstance(old, Host) and isinstance(new, Host) and old.tunnels == new.tunnels
    if same and isinstance(old, Host) and isinstance(new, Host) and _peer(old) == _peer(new):
        lost = [host.state is HostState.LOST for host in (old, new)]
        if lost[0] is lost[1]:
            # ports are open on it or not by its own labels, networks of the site stand on its links
            own = [_told_itself(host) for host in (old, new)]
            return set() if own[0] == own[1] else {new.id}
    host = new if isinstance(new, Host) else old
    assert isinstance(host, Host)
    found = {host.id}
    for block in cluster.blocks_by_host.get(host.id, {}).values():
        found |= _holders(cluster, block.network)
    return found


def _told_itself(host: Host) -> object:
    facts = host.facts
    return host.spec.labels, facts.labels, facts.nics, facts.link_kinds


def carriers(cluster: Cluster, network: NetworkId) -> set[HostId]:
    """The hosts that have the network in their View."""
    if network == PREDEFINED_BRIDGE:
        return set(cluster.hosts)
    used = {i.host for i in cluster.on_network(network).values() if i.host is not None}
    return used | _holders(cluster, network)


def _keeps_others(cluster: Cluster, change: Change) -> bool:
    """Whether hosts are to keep other images for the service."""
    keep = cluster.settings.images.keep
    old, new = (kept(s, keep) if isinstance(s, Service) else None for s in (change.old, change.new))
    return old != new


def _told_of(cluster: Cluster, change: Change) -> set[HostId]:
    services = [record for record in (change.old, change.new) if isinstance(record, Service)]
    if len(services) == 2 and same_addresses(services[0], services[1]):
        return set()
    networks = {network for s in services for network in s.vips}
    if any(service.ingress for service in services):
        networks.add(ingress.NETWORK)
    return {host for network in networks for host in carriers(cluster, network)}


def _service(cluster: Cluster, service: Service, network: NetworkId, host: HostId) -> ServiceView | None:
    if network == ingress.NETWORK:
        if service.removed:
            return None
        ports = ingress.open_ports(cluster, service, host)
        return ServiceView(name=service.spec.name, balance=service.spec.balance, ports=ports)
    vip = service.vips[network]
    return ServiceView(name=service.spec.name, ipv4=vip.ipv4, ipv6=vip.ipv6, balance=service.spec.balance)


def _holders(cluster: Cluster, network: NetworkId) -> set[HostId]:
    return {block.host for block in cluster.blocks_by_network.get(network, {}).values()}


def _carried(cluster: Cluster, host: HostId) -> Iterable[NetworkId]:
    """Networks that this host has a share of, or an instance on, and the predefined one: steps of builds are
    on it, of which nobody but their host knows."""
    held = {b.network for b in cluster.blocks_by_host.get(host, {}).values() if not b.quarantined_until}
    used = {a.network for i in cluster.on_host(host).values() for a in i.attachments}
    used.add(NetworkId(PREDEFINED_BRIDGE))
    return sorted(network for network in held | used if network in cluster.networks)


def _network(cluster: Cluster, ident: NetworkId, host: HostId) -> NetworkView:
    network = cluster.networks[ident]
    fixed, fixed6 = _promised(cluster, ident, host, 4), _promised(cluster, ident, host, 6)
    if not spans_hosts(network):
        cidrs = tuple(subnet.cidr for subnet in network.spec.subnets)
        return NetworkView(
            id=ident,
            spec=network.spec,
            vni=network.vni,
            blocks=cidrs,
            vip_ranges=network.vip_ranges,
            fixed=fixed,
            fixed6=fixed6,
        )
    blocks = tuple(cluster.blocks_by_network.get(ident, {}).values())
    leases = [block for block in blocks if block.holder]
    held = _held(blocks, host)
    own = tuple(sorted(held.shares.get(host, ())))
    awaited = tuple(sorted(b.address for b in leases if b.host == host and b.awaits is not None))
    promised = {*fixed.values(), *fixed6.values()}
    return NetworkView(
        id=ident,
        spec=network.spec,
        vni=network.vni,
        blocks=own,
        peers=tuple(
            NetworkPeer(
                host=peer,
                blocks=tuple(sorted((*held.shares.get(peer, ()), *held.singles.get(peer, ())))),
                number=held.numbers.get(peer, 0),
                ends=cluster.hosts[peer].tunnels.get(ident, ()),
            )
            for peer in sorted(held.shares.keys() | held.singles.keys())
            if peer != host and _reachable(cluster, peer)
        ),
        fixed={i: a for i, a in fixed.items() if a not in awaited},
        vip_ranges=network.vip_ranges,
        fixed6={i: a for i, a in fixed6.items() if a not in awaited},
        singles=tuple(sorted(held.singles.get(host, ()))),
        awaited=awaited,
        set_aside={
            lease.address: mark(lease)
            for lease in sorted(leases, key=lambda b: b.key)
            if lease.address not in promised and (lease.awaits == host or _within(lease, own))
        },
        parent=_parent(network, cluster.hosts.get(host)),
        keys=network.keys,
    )


class _Held(NamedTuple):
    """Of one network, what each host holds: `shares` of its range, and `singles`, addresses of leases that
    stand outside of their host's share. `numbers` are those of the shares' last changes."""

    shares: Mapping[HostId, list[str]]
    singles: Mapping[HostId, list[str]]
    numbers: Mapping[HostId, int]


def _held(blocks: Iterable[Block], host: HostId) -> _Held:
    """As the host may see it: of what is in quarantine, its own alone."""
    shares: dict[HostId, list[str]] = {}
    singles: dict[HostId, list[str]] = {}
    numbers: dict[HostId, int] = {}
    for block in blocks:
        if not block.holder and (not block.quarantined_until or block.host == host):
            shares.setdefault(block.host, []).append(block.cidr)
            numbers[block.host] = max(block.number, numbers.get(block.host, 0))
    for lease in blocks:
        if lease.holder and standing(lease) and not _within(lease, shares.get(lease.host, ())):
            singles.setdefault(lease.host, []).append(lease.cidr)
    return _Held(shares, singles, numbers)


def _parent(network: Network, host: Host | None) -> str:
    if network.spec.driver not in SITE_DRIVERS or host is None:
        return ""
    return site_parent(network, host).name


def standing(lease: Block) -> bool:
    """Whether a fixed address is led to its host."""
    return lease.awaits is None and not lease.quarantined_until


def _within(lease: Block, shares: Iterable[str]) -> bool:
    return lies_in(span_of(lease.cidr), map(span_of, shares))


def _promised(cluster: Cluster, network: NetworkId, host: HostId, version: int) -> dict[InstanceId, str]:
    """Addresses of one family that instances of this host asked for by name."""
    return {
        instance.id: address
        for instance in cluster.on_host(host).values()
        for a in instance.attachments
        if a.network == network and (address := a.ipv4 if version == 4 else a.ipv6)
    }


def _reachable(cluster: Cluster, peer: HostId) -> bool:
    host = cluster.hosts.get(peer)
    return host is not None and host.state is not HostState.LOST


def _peer(host: Host) -> Peer:
    facts = host.facts
    return Peer(
        host=host.id,
        name=host.spec.name,
        address=facts.address,
        addresses=facts.addresses,
        behind_nat=facts.behind_nat,
        link_local=facts.link_local,
    )
