"""Policies against the cluster: whom they select, and what they say of two ends. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from controller.snapshot import Cluster
from model.ids import HostId, InstanceId, PolicyId
from model.policy import DIRECTIONS, Party, PolicySpec, matches
from model.policywords import direction_words
from model.records import Desired, Instance
from model.status import Endpoint, InstanceStatus


def parties_of(cluster: Cluster, instance: Instance, endpoints: Iterable[Endpoint] = ()) -> Iterator[Party]:
    """Its feet on networks; with addresses where `endpoints`, as reported, have some."""
    reported = {endpoint.network: endpoint for endpoint in endpoints}
    for attachment in instance.attachments:
        network = cluster.networks.get(attachment.network)
        if network is None:
            continue
        endpoint = reported.get(network.id)
        yield Party(
            name=instance.name,
            network=network.id,
            network_name=network.spec.name,
            service=instance.service_name,
            labels=instance.spec.labels,
            ipv4=endpoint.ipv4 if endpoint else "",
            ipv6=endpoint.ipv6 if endpoint else "",
        )


def selecting_on(cluster: Cluster, host: HostId) -> Mapping[PolicyId, PolicySpec]:
    """The policies that select some instance of that host."""
    if not cluster.policies:
        return {}
    here = [party for i in cluster.on_host(host).values() for party in parties_of(cluster, i)]
    return {
        ident: policy.spec
        for ident, policy in sorted(cluster.policies.items())
        if any(matches(policy.spec.selects, party) for party in here)
    }


def selected_by(cluster: Cluster, spec: PolicySpec) -> tuple[str, ...]:
    """Names of the containers that it selects now."""
    return tuple(
        sorted(
            instance.name
            for instance in cluster.instances.values()
            if instance.desired is not Desired.REMOVED
            and any(matches(spec.selects, party) for party in parties_of(cluster, instance))
        )
    )


def policy_lines(cluster: Cluster, instance: Instance) -> tuple[str, ...]:
    """What policies say of it, a line each."""
    parties = list(parties_of(cluster, instance))
    return tuple(
        f"policy {spec.name}: {direction} {direction_words(spec, direction)}"
        for spec in sorted((p.spec for p in cluster.policies.values()), key=lambda s: s.name)
        if any(matches(spec.selects, party) for party in parties)
        for direction in DIRECTIONS
        if spec.rules(direction) is not None
    )


def on_network(
    cluster: Cluster, statuses: Mapping[InstanceId, InstanceStatus], network: str
) -> tuple[Party, ...]:
    """All who have addresses on the network of that id."""
    return tuple(
        party
        for ident, status in statuses.items()
        if status.endpoints and (instance := cluster.instances.get(ident)) is not None
        for party in parties_of(cluster, instance, status.endpoints)
        if party.network == network and party.addresses
    )
