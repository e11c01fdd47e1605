"""Ports that services publish on every host: their numbers, where they are open, the network that carries
them. Pure.

One overlay network, made when the first such service is, brings what arrives at any host to instances on any
other. Invariants: a port and protocol is one service's in the whole fleet; a number that was chosen for a
service stays while it publishes that port; a port is open on each host that its `on` admits and that is an
entry of the network (`controller.reconcile.ingress` sees to these).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from immutables import Map
from msgspec.structs import replace

from controller.addressing import free_vni, resolve_subnets
from controller.schedule.constraints import matches, parse_constraint
from controller.snapshot import Cluster
from model.errors import Exhausted, InUse
from model.ids import HostId, NetworkId, ServiceId
from model.records import Host, Instance, Network, ResolvedAttachment, Service
from model.spec import ContainerSpec, NetworkSpec, Publish, ServiceSpec
from model.status import HostReport
from net.backend.base import LEAST_MTU_IPV6
from net.backend.vxlan import overhead
from net.host import INGRESS
from net.returnpath import MOST_ENTRIES

NETWORK = NetworkId(INGRESS)
FIRST_PORT, LAST_PORT = 30000, 32767
"""Of numbers that nobody chose, as in Swarm."""
_NONE: Map[ServiceId, Service] = Map()


def wished(spec: ContainerSpec) -> tuple[Publish, ...]:
    return tuple(port for port in spec.ports if port.mode == "ingress")


def container_of(spec: ServiceSpec) -> ContainerSpec:
    """What a service's instances are made by: of these ports they know nothing, so that a change of them
    replaces nobody."""
    container = spec.container
    if not wished(container):
        return container
    return replace(container, ports=tuple(port for port in container.ports if port.mode != "ingress"))


def publishing(cluster: Cluster) -> Iterable[Service]:
    """The services with such ports, but for those that are being removed."""
    return (s for s in cluster.services_on.get(NETWORK, _NONE).values() if not s.removed)


def numbered(
    cluster: Cluster, ident: ServiceId, spec: ContainerSpec, held: Iterable[Publish] = ()
) -> tuple[Publish, ...]:
    """The wished ports, each with a number. Raises InUse for one that another service has, Exhausted."""
    taken: dict[tuple[str, int], str] = {
        (port.protocol, port.published): service.spec.name
        for service in publishing(cluster)
        if service.id != ident
        for port in service.ingress
    }
    wishes = wished(spec)
    numbers = [0 if w.published_to else w.published for w in wishes]
    for wish, number in zip(wishes, numbers, strict=True):
        if owner := taken.get((wish.protocol, number)):
            raise InUse(
                f"port {number}/{wish.protocol} is published by service {owner} already",
                hint="Choose another port, or leave it out to get a free one",
            )
    used: set[tuple[str, int]] = {*taken, *((w.protocol, n) for w, n in zip(wishes, numbers, strict=True))}
    for index, wish in enumerate(wishes):
        numbers[index] = numbers[index] or _kept(wish, held, used)
        used.add((wish.protocol, numbers[index]))
    if not all(numbers):
        used |= _of_hosts(cluster)
    for index, wish in enumerate(wishes):
        numbers[index] = numbers[index] or _free(wish, used)
        used.add((wish.protocol, numbers[index]))
    return tuple(replace(w, published=n, published_to=0) for w, n in zip(wishes, numbers, strict=True))


def _range(wish: Publish) -> tuple[int, int]:
    return (wish.published, wish.published_to) if wish.published_to else (FIRST_PORT, LAST_PORT)


def _kept(wish: Publish, held: Iterable[Publish], taken: set[tuple[str, int]]) -> int:
    """The number that this wish has already; 0 for none."""
    first, last = _range(wish)
    for port in held:
        same = (port.target, port.protocol) == (wish.target, wish.protocol)
        if same and first <= port.published <= last and (port.protocol, port.published) not in taken:
            return port.published
    return 0


def _of_hosts(cluster: Cluster) -> set[tuple[str, int]]:
    """Ports of single hosts that containers publish: better nobody's in the fleet."""
    ports = (port for instance in cluster.instances.values() for port in instance.spec.ports)
    return {(port.protocol, port.published) for port in ports if port.published}


def _free(wish: Publish, taken: set[tuple[str, int]]) -> int:
    first, last = _range(wish)
    for number in range(first, last + 1):
        if (wish.protocol, number) not in taken:
            return number
    raise Exhausted(f"no {wish.protocol} port of {first} to {last} is free in the fleet")


def attachments(cluster: Cluster, service: Service) -> tuple[ResolvedAttachment, ...]:
    """What its instances have beside the networks of its spec, and last."""
    if not service.ingress or NETWORK not in cluster.networks:
        return ()
    return (ResolvedAttachment(network=NETWORK),)


def attached_as(instance: Instance, extra: tuple[ResolvedAttachment, ...]) -> Instance:
    """With this foot on the ingress network, or with none."""
    if tuple(a for a in instance.attachments if a.network == NETWORK) == extra:
        return instance
    others = tuple(a for a in instance.attachments if a.network != NETWORK)
    return replace(instance, attachments=(*others, *extra))


def admits(port: Publish, host: Host) -> bool:
    """Whether it is wanted on this host."""
    return all(matches(parse_constraint(text), host) for text in port.on)


def unopened(cluster: Cluster, service: Service, reports: Mapping[HostId, HostReport]) -> Iterable[str]:
    """Ports of the service that are wanted on hosts and not open there, and why, for people."""
    for port in () if service.removed else service.ingress:
        wanted = {host.id for host in cluster.hosts.values() if admits(port, host)}
        entries = {host for host in wanted if entry_number(cluster, host)}
        name, key = f"port {port.published}/{port.protocol}", (port.protocol, port.published)
        if len(wanted) > MOST_ENTRIES and len(entries) == MOST_ENTRIES:
            yield f"{name} is open on {len(entries)} of {len(wanted)} hosts: choose by on="
        for host in sorted(entries, key=cluster.host_name):
            report = reports.get(host)
            if report is not None and key in report.unpublished:
                yield f"{name} is not open on {cluster.host_name(host)}: somebody else has it there"
        if not wanted and cluster.hosts:
            yield f"{name} is open nowhere: no host has {' and '.join(port.on)}"


def host_ports(cluster: Cluster) -> Mapping[HostId, frozenset[tuple[str, int]]]:
    """(protocol, port) that services have on each host, which are nobody else's there."""
    ports = {port for service in publishing(cluster) for port in service.ingress}
    if not ports:
        return {}
    return {
        host.id: frozenset((p.protocol, p.published) for p in ports if admits(p, host))
        for host in cluster.hosts.values()
        if entry_number(cluster, host.id)
    }


def entry_number(cluster: Cluster, host: HostId) -> int:
    """By which others know this host as an entry of the network; 0 while it is none."""
    held = cluster.blocks_by_host.get(host, {}).values()
    return max((b.number for b in held if b.network == NETWORK and not b.quarantined_until), default=0)


def open_ports(cluster: Cluster, service: Service, host: HostId) -> tuple[Publish, ...]:
    """Those of the service that this host should have open."""
    record = cluster.hosts.get(host)
    if record is None or service.removed or not service.ingress or not entry_number(cluster, host):
        return ()
    return tuple(port for port in service.ingress if admits(port, record))


def network(cluster: Cluster, now: float) -> Network:
    """A new one; with IPv6 if any network of the fleet has it. Raises Exhausted."""
    vni = free_vni(cluster)
    spec = NetworkSpec(
        name=INGRESS, driver="overlay", internal=True, ipv6=wants_ipv6(cluster), options={"icc": "off"}
    )
    subnets = resolve_subnets(spec, cluster, vni=vni, hosts=cluster.hosts.values())
    return Network(id=NETWORK, spec=replace(spec, subnets=subnets), vni=vni, predefined=True, created_at=now)


def wants_ipv6(cluster: Cluster) -> bool:
    """Not unasked: a host that routes IPv6 takes no routes from routers any more (Linux ip-sysctl,
    accept_ra)."""
    used = any(":" in s.cidr for n in cluster.networks.values() for s in n.spec.subnets)
    room = (h.facts.mtu - overhead(h.facts.address) for h in cluster.hosts.values())
    return used and all(most >= LEAST_MTU_IPV6 for most in room)
