"""The hosts as a scheduler sees them: what is free, taken and known, changed while it places. Pure.

Invariant: a Candidate's free resources are its facts minus what counted instances reserved, and `take` is
the only thing that lowers them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from controller import ingress
from controller.parents import choosy, lacking
from controller.snapshot import Cluster, Usage, counts
from model.hostports import addresses_overlap
from model.ids import HostId, ServiceId
from model.records import Host, Instance, Network
from model.spec import Availability, ContainerSpec, Mount, Placement, Publish, Struct
from model.status import HostReport, HostState

Port = tuple[str, int, str]
"""(protocol, port, host address or empty for all)."""


class Demand(Struct):
    """What a group of equal instances asks of a host."""

    placement: Placement = Placement()
    platform: str = ""
    ports: tuple[Port, ...] = ()
    volumes: tuple[str, ...] = ()
    """Named volumes it uses."""
    volumes_bind: bool = False
    """It must run where its volumes are (plain containers); a service only prefers to."""
    service: ServiceId | None = None
    pinned: HostId | None = None
    networks: tuple[str, ...] = ()
    """Ids or names."""


def demand_of(
    spec: ContainerSpec,
    placement: Placement,
    *,
    service: ServiceId | None = None,
    pinned: HostId | None = None,
) -> Demand:
    return Demand(
        placement=placement,
        platform=spec.platform,
        ports=host_ports(spec.ports),
        volumes=tuple(sorted(_named(spec.mounts))),
        volumes_bind=service is None,
        service=service,
        pinned=pinned,
        networks=tuple(sorted(attachment.network for attachment in spec.networks)),
    )


def host_ports(ports: Iterable[Publish]) -> tuple[Port, ...]:
    """Those that take a given port of the host where the container runs."""
    return tuple(
        (p.protocol, p.published, p.host_ip)
        for p in ports
        if p.published and not p.published_to and p.mode == "host"
    )


def _named(mounts: Iterable[Mount]) -> set[str]:
    return {m.source for m in mounts if m.type == "volume" and m.source}


@dataclass(slots=True)
class Candidate:
    """One host, while placing."""

    host: Host
    nano_cpus: int
    memory: int
    instances: int
    volumes: frozenset[str]
    foreign_ports: frozenset[tuple[str, int]]
    """Those of foreign processes, and those that services publish on every host."""
    settling: bool
    records: Iterable[Instance]
    of_service: dict[ServiceId | None, int] = field(default_factory=dict)
    load: float = 0.0
    """The fuller of its two resources, 0 to 1."""
    lacking: Mapping[str, str] = field(default_factory=dict)
    """Networks that it can't carry (`controller.parents`), and why."""
    _ports: set[Port] | None = None

    @property
    def id(self) -> HostId:
        return self.host.id

    @property
    def open(self) -> bool:
        """Whether it takes work at all."""
        host = self.host
        active = host.spec.availability is Availability.ACTIVE
        return host.state is HostState.READY and active and not self.settling

    def weigh(self) -> None:
        """Bring `load` up to date."""
        facts = self.host.facts
        cpus = 1 - self.nano_cpus / facts.nano_cpus if facts.nano_cpus else 0.0
        memory = 1 - self.memory / facts.memory if facts.memory else 0.0
        self.load = cpus if cpus > memory else memory

    def ports(self) -> set[Port]:
        """Host ports that our instances have, found when first asked for."""
        if self._ports is None:
            self._ports = {port for i in self.records if counts(i) for port in host_ports(i.spec.ports)}
        return self._ports

    def taken_port(self, wanted: Iterable[Port]) -> Port | None:
        """The first of `wanted` that is not free."""
        for port in wanted:
            protocol, number, address = port
            if (protocol, number) in self.foreign_ports:
                return port
            for other, taken, at in self.ports():
                if (other, taken) == (protocol, number) and addresses_overlap(address, at):
                    return port
        return None

    def take(self, demand: Demand) -> None:
        """Set aside what one instance needs."""
        self.nano_cpus -= demand.placement.reservations.nano_cpus
        self.memory -= demand.placement.reservations.memory
        self.instances += 1
        self.weigh()
        self.of_service[demand.service] = self.of_service.get(demand.service, 0) + 1
        if demand.ports:
            self.ports().update(demand.ports)

    def give_back(self, demand: Demand) -> None:
        """Undo one `take`."""
        self.nano_cpus += demand.placement.reservations.nano_cpus
        self.memory += demand.placement.reservations.memory
        self.instances -= 1
        self.weigh()
        self.of_service[demand.service] -= 1
        if demand.ports:
            self.ports().difference_update(demand.ports)


Fleet = Mapping[HostId, Candidate]


def fleet_of(
    cluster: Cluster,
    reports: Mapping[HostId, HostReport] | None = None,
    settling: Set[HostId] = frozenset(),
    own: Mapping[HostId, Sequence[Instance]] | None = None,
) -> Fleet:
    """Every host of the cluster, as a fresh set of candidates, ordered by id. `own`: what hosts made
    themselves, which takes room as well."""
    known, published = reports or {}, ingress.host_ports(cluster)
    hosts = tuple(cluster.hosts.values())
    particular = [n for n in cluster.networks.values() if choosy(n, hosts)]
    nothing: frozenset[tuple[str, int]] = frozenset()
    return {
        host: _candidate(
            cluster,
            cluster.hosts[host],
            known.get(host),
            published.get(host, nothing),
            host in settling,
            particular,
            (own or {}).get(host, ()),
        )
        for host in sorted(cluster.hosts)
    }


def _candidate(
    cluster: Cluster,
    host: Host,
    report: HostReport | None,
    published: frozenset[tuple[str, int]],
    settling: bool,
    particular: Sequence[Network],
    own: Sequence[Instance],
) -> Candidate:
    used = cluster.usage.get(host.id, Usage())
    there = [instance for instance in own if counts(instance)]
    reserved = [instance.placement.reservations for instance in there]
    records = cluster.on_host(host.id).values()
    candidate = Candidate(
        host=host,
        nano_cpus=host.facts.nano_cpus - used.nano_cpus - sum(r.nano_cpus for r in reserved),
        memory=host.facts.memory - used.memory - sum(r.memory for r in reserved),
        instances=used.instances + len(there),
        volumes=frozenset(v.name for v in report.volumes) if report else frozenset(),
        foreign_ports=published.union(report.used_ports) if report else published,
        settling=settling,
        records=(*records, *there) if there else records,
        lacking=lacking(particular, host),
    )
    candidate.weigh()
    return candidate


def count_service(fleet: Fleet, service: ServiceId, instances: Iterable[Instance]) -> None:
    """Tell the candidates how many of a service's instances they have."""
    for instance in instances:
        if instance.host is not None and instance.host in fleet and counts(instance):
            tally = fleet[instance.host].of_service
            tally[service] = tally.get(service, 0) + 1
