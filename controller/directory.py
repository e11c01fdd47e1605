"""Who is on each network, kept from records and reports. In memory: hosts say it again in each Hello.

Invariant: an instance is a member exactly while its host is not lost, its last report says that it runs (in
fleets with policies also that it is about to start or to end), and that report names an endpoint there. Each
network's members are an immutable value of their own: a difference of two directories looks at changed
networks only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from immutables import Map

from controller.addressing import spans_hosts
from controller.snapshot import Change, Cluster
from model.directory import Directory, Member, Members
from model.ids import HostId, InstanceId, NetworkId
from model.policy import label_keys
from model.readiness import takes_connections
from model.records import Host, Instance, Policy, Record
from model.status import HostState, InstanceStatus, Phase

_NONE: Map[InstanceId, Member] = Map()
_ON_THE_WAY = frozenset({Phase.PREPARING, Phase.CREATED, Phase.STARTING, Phase.STOPPING})
"""Phases in which its addresses are its own without its running: policies let such in already, and still."""


class Memberships:
    def __init__(self) -> None:
        self._by_network: dict[NetworkId, Map[InstanceId, Member]] = {}
        self._networks_of: dict[InstanceId, frozenset[NetworkId]] = {}

    def members(self, network: NetworkId) -> Members:
        return self._by_network.get(network, _NONE)

    def of_host(self, cluster: Cluster, host: HostId, networks: Iterable[NetworkId]) -> Directory:
        """What `host`, which carries `networks`, should know. Of a network that each host has for itself only
        its own members."""
        found: dict[NetworkId, Members] = {}
        for network in networks:
            members: Members = self.members(network)
            record = cluster.networks.get(network)
            if record is None:
                continue
            if not spans_hosts(record):
                members = {i: m for i, m in members.items() if m.host == host}
            if members:
                found[network] = members
        return Directory(networks=found)

    def refresh(
        self,
        cluster: Cluster,
        statuses: Mapping[InstanceId, InstanceStatus],
        instances: Iterable[InstanceId],
    ) -> set[NetworkId]:
        """Look at these instances anew; the networks whose members changed by it."""
        changed: set[NetworkId] = set()
        labels = sorted(label_keys(policy.spec for policy in cluster.policies.values()))
        for ident in instances:
            now = _memberships(cluster, cluster.instances.get(ident), statuses.get(ident), labels)
            for network in self._networks_of.get(ident, frozenset()) | now.keys():
                before = self._by_network.get(network, _NONE)
                member = now.get(network)
                if before.get(ident) == member:
                    continue
                changed.add(network)
                after = before.delete(ident) if member is None else before.set(ident, member)
                if len(after):
                    self._by_network[network] = after
                else:
                    del self._by_network[network]
            if now:
                self._networks_of[ident] = frozenset(now)
            else:
                self._networks_of.pop(ident, None)
        return changed

    def known(self) -> set[InstanceId]:
        return set(self._networks_of)


def instances_of(cluster: Cluster, changes: Iterable[Change]) -> set[InstanceId]:
    """The instances whose membership a change may touch: a host's all, when it is lost or back; everybody's
    with a policy, which may ask for other labels."""
    found: set[InstanceId] = set()
    for change in changes:
        if isinstance(change.old, Policy) or isinstance(change.new, Policy):
            return set(cluster.instances)
        for record in (change.old, change.new):
            if isinstance(record, Instance):
                found.add(record.id)
            elif isinstance(record, Host) and _state(change.old) is not _state(change.new):
                found.update(cluster.on_host(record.id))
    return found


def _state(record: Record | None) -> HostState | None:
    return record.state if isinstance(record, Host) else None


def _memberships(
    cluster: Cluster, instance: Instance | None, status: InstanceStatus | None, labels: Iterable[str]
) -> dict[NetworkId, Member]:
    if instance is None or status is None or instance.host is None:
        return {}
    running = status.phase is Phase.RUNNING
    if not running and not (cluster.policies and status.phase in _ON_THE_WAY):
        return {}
    host = cluster.hosts.get(instance.host)
    if host is None or host.state is HostState.LOST:
        return {}
    aliases = {a.network: a.aliases for a in instance.attachments}
    ready = running and takes_connections(instance, status)
    return {
        endpoint.network: Member(
            name=instance.name,
            host=instance.host,
            service=instance.service,
            service_name=instance.service_name,
            slot=instance.slot,
            aliases=aliases.get(endpoint.network, ()),
            ipv4=endpoint.ipv4,
            ipv6=endpoint.ipv6,
            ready=ready,
            running=running,
            labels={key: instance.spec.labels[key] for key in labels if key in instance.spec.labels},
        )
        for endpoint in status.endpoints
        if endpoint.network in aliases
    }
