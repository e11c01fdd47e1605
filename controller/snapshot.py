"""The cluster as one immutable, indexed value. Pure.

Invariant: every index is a function of the records alone, and `apply` keeps it so at a cost that depends on
the size of the change and not of the fleet. A Cluster can be kept, compared and read from anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, TypeVar

from immutables import Map

from controller import keptimages
from model.ids import HostId, InstanceId, NetworkId, PolicyId, ServiceId
from model.records import (
    Block,
    Desired,
    FleetSettings,
    Host,
    Instance,
    JoinToken,
    KeptLogin,
    Network,
    Policy,
    Record,
    RegistryToken,
    Revision,
    Service,
)
from model.spec import Struct
from net.host import INGRESS

Kind = Literal[
    "instance",
    "service",
    "host",
    "network",
    "block",
    "policy",
    "token",
    "registry-token",
    "login",
    "settings",
]
TYPES: Mapping[Kind, type[Record]] = {
    "instance": Instance,
    "service": Service,
    "host": Host,
    "network": Network,
    "block": Block,
    "policy": Policy,
    "token": JoinToken,
    "registry-token": RegistryToken,
    "login": KeptLogin,
    "settings": FleetSettings,
}
_KINDS: Mapping[type, Kind] = {type_: kind for kind, type_ in TYPES.items()}

K = TypeVar("K")
V = TypeVar("V")
_NONE: Map[Any, Any] = Map()
_SETTINGS = FleetSettings()


class Key(NamedTuple):
    """Names one record in the store."""

    kind: Kind
    id: str


def key_of(record: Record) -> Key:
    """A block is keyed by network and range, everything else by its id."""
    return Key(_KINDS[type(record)], record.key if isinstance(record, Block) else record.id)


class Change(Struct):
    """One record before and after; `None` where it did not or does not exist."""

    old: Record | None
    new: Record | None

    @property
    def key(self) -> Key:
        record = self.new if self.new is not None else self.old
        assert record is not None
        return key_of(record)


class Usage(NamedTuple):
    """What the instances of one host have set aside."""

    nano_cpus: int = 0
    memory: int = 0
    instances: int = 0


@dataclass(frozen=True, slots=True)
class Cluster:
    """All records at one revision, with the indexes that decisions need."""

    revision: Revision = 0
    settings: FleetSettings = _SETTINGS
    instances: Map[InstanceId, Instance] = _NONE
    services: Map[ServiceId, Service] = _NONE
    hosts: Map[HostId, Host] = _NONE
    networks: Map[NetworkId, Network] = _NONE
    blocks: Map[str, Block] = _NONE
    policies: Map[PolicyId, Policy] = _NONE
    tokens: Map[str, JoinToken] = _NONE
    registry_tokens: Map[str, RegistryToken] = _NONE
    logins: Map[str, KeptLogin] = _NONE
    names: Map[str, InstanceId] = _NONE
    """Names of instances that are not being removed."""
    by_host: Map[HostId | None, Map[InstanceId, Instance]] = _NONE
    """Under `None`: instances without a host yet."""
    by_service: Map[ServiceId, Map[InstanceId, Instance]] = _NONE
    by_network: Map[NetworkId, Map[InstanceId, Instance]] = _NONE
    services_on: Map[NetworkId, Map[ServiceId, Service]] = _NONE
    """Services with an address on that network; on the ingress network those that publish by it."""
    usage: Map[HostId, Usage] = _NONE
    blocks_by_network: Map[NetworkId, Map[str, Block]] = _NONE
    blocks_by_host: Map[HostId, Map[str, Block]] = _NONE
    kept_images: keptimages.Kept = field(default_factory=dict)
    """For services, on every host; the same value until an image of a service is another."""

    def get(self, key: Key) -> Record | None:
        """The record of that key, if there is one."""
        if key.kind == "settings":
            return self.settings if self.settings.revision else None
        return _table(self, key.kind).get(key.id)

    def records(self) -> Iterable[Record]:
        """Every record, in no particular order."""
        if self.settings.revision:
            yield self.settings
        for kind in TYPES:
            if kind != "settings":
                yield from _table(self, kind).values()

    def on_host(self, host: HostId | None) -> Map[InstanceId, Instance]:
        return self.by_host.get(host, _NONE)

    def of_service(self, service: ServiceId) -> Map[InstanceId, Instance]:
        return self.by_service.get(service, _NONE)

    def on_network(self, network: NetworkId) -> Map[InstanceId, Instance]:
        return self.by_network.get(network, _NONE)

    def blocks_of(self, network: NetworkId) -> Map[str, Block]:
        """A network's blocks, by range."""
        return self.blocks_by_network.get(network, _NONE)

    def host_name(self, host: HostId | None) -> str:
        """The host's name, its short id once it is removed, empty without a host."""
        if host is None:
            return ""
        found = self.hosts.get(host)
        return found.spec.name if found else host[:12]

    def apply(
        self, puts: Iterable[Record], deletes: Iterable[Record], revision: Revision
    ) -> tuple[Cluster, tuple[Change, ...]]:
        """The next Cluster, and what changed. Records must carry the revision they are stored under."""
        cluster, changes = replace(self, revision=revision), []
        for record in deletes:
            old = cluster.get(key_of(record))
            if old is not None:
                changes.append(Change(old=old, new=None))
                cluster = _store(_unindexed(cluster, old), old, None)
        for record in puts:
            old = cluster.get(key_of(record))
            changes.append(Change(old=old, new=record))
            if old is not None:
                cluster = _unindexed(cluster, old)
            cluster = _indexed(_store(cluster, old, record), record)
        kept = keptimages.following(
            self.kept_images,
            [(change.old, change.new) for change in changes],
            cluster.services.values(),
            cluster.settings.images.keep,
        )
        return replace(cluster, kept_images=kept), tuple(changes)


_FIELDS: Mapping[Kind, str] = {
    "instance": "instances",
    "service": "services",
    "host": "hosts",
    "network": "networks",
    "block": "blocks",
    "policy": "policies",
    "token": "tokens",
    "registry-token": "registry_tokens",
    "login": "logins",
}


def _table(cluster: Cluster, kind: Kind) -> Map[str, Any]:
    table: Map[str, Any] = getattr(cluster, _FIELDS[kind])
    return table


def _store(cluster: Cluster, old: Record | None, new: Record | None) -> Cluster:
    record = new if new is not None else old
    assert record is not None
    kind, ident = key_of(record)
    if kind == "settings":
        return replace(cluster, settings=new if isinstance(new, FleetSettings) else FleetSettings())
    table = _table(cluster, kind)
    changed = table.delete(ident) if new is None else table.set(ident, new)
    return replace(cluster, **{_FIELDS[kind]: changed})  # type: ignore[arg-type]


def _put(index: Map[K, Map[Any, V]], group: K, key: Any, value: V) -> Map[K, Map[Any, V]]:
    return index.set(group, index.get(group, Map()).set(key, value))


def _drop(index: Map[K, Map[Any, V]], group: K, key: Any) -> Map[K, Map[Any, V]]:
    inner = index[group].delete(key)
    return index.set(group, inner) if len(inner) else index.delete(group)


def counts(instance: Instance) -> bool:
    """Whether its reservations and host ports are taken. One that is being removed still holds them."""
    return instance.desired is not Desired.STOPPED and not instance.idle


def _used(usage: Map[HostId, Usage], instance: Instance, sign: int) -> Map[HostId, Usage]:
    if instance.host is None or not counts(instance):
        return usage
    have, want = usage.get(instance.host, Usage()), instance.placement.reservations
    sums = Usage(
        have.nano_cpus + sign * want.nano_cpus, have.memory + sign * want.memory, have.instances + sign
    )
    return usage.set(instance.host, sums) if sums.instances else usage.delete(instance.host)


def _known_on(service: Service) -> Iterable[NetworkId]:
    yield from service.vips
    if service.ingress:
        yield NetworkId(INGRESS)


def _indexed(cluster: Cluster, record: Record) -> Cluster:
    if isinstance(record, Instance):
        by_network, by_service, names = cluster.by_network, cluster.by_service, cluster.names
        for network in {a.network for a in record.attachments}:
            by_network = _put(by_network, network, record.id, record)
        if record.service is not None:
            by_service = _put(by_service, record.service, record.id, record)
        if record.desired is not Desired.REMOVED:
            names = names.set(record.name, record.id)
        return replace(
            cluster,
            names=names,
            by_host=_put(cluster.by_host, record.host, record.id, record),
            by_service=by_service,
            by_network=by_network,
            usage=_used(cluster.usage, record, +1),
        )
    if isinstance(record, Service):
        services_on = cluster.services_on
        for network in _known_on(record):
            services_on = _put(services_on, network, record.id, record)
        return replace(cluster, services_on=services_on)
    if isinstance(record, Block):
        return replace(
            cluster,
            blocks_by_network=_put(cluster.blocks_by_network, record.network, record.cidr, record),
            blocks_by_host=_put(cluster.blocks_by_host, record.host, record.key, record),
        )
    return cluster


def _unindexed(cluster: Cluster, record: Record) -> Cluster:
    if isinstance(record, Instance):
        by_network, by_service, names = cluster.by_network, cluster.by_service, cluster.names
        for network in {a.network for a in record.attachments}:
            by_network = _drop(by_network, network, record.id)
        if record.service is not None:
            by_service = _drop(by_service, record.service, record.id)
        if names.get(record.name) == record.id:
            names = names.delete(record.name)
        return replace(
            cluster,
            names=names,
            by_host=_drop(cluster.by_host, record.host, record.id),
            by_service=by_service,
            by_network=by_network,
            usage=_used(cluster.usage, record, -1),
        )
    if isinstance(record, Service):
        services_on = cluster.services_on
        for network in _known_on(record):
            services_on = _drop(services_on, network, record.id)
        return replace(cluster, services_on=services_on)
    if isinstance(record, Block):
        return replace(
            cluster,
            blocks_by_network=_drop(cluster.blocks_by_network, record.network, record.cidr),
            blocks_by_host=_drop(cluster.blocks_by_host, record.host, record.key),
        )
    return cluster
