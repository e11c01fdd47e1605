"""From Views, members and records to what this host's packet filter enforces. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from agent.members import wish_of
from agent.record import Local
from model.directory import Directory, Member
from model.ids import HostId, InstanceId, NetworkId
from model.policy import Party
from model.records import Instance
from model.view import NetworkView, View
from net.policy import HostPolicies, Place, endpoint_key, host_policies

Own = Mapping[NetworkId, tuple[Party, ...]]


def own_parties(view: View, records: Mapping[InstanceId, Local]) -> Own:
    """This host's containers by network, from the moment on at which they have addresses."""
    found: dict[NetworkId, list[Party]] = defaultdict(list)
    for record in records.values():
        wish = wish_of(view, record)
        for endpoint in record.endpoints if wish is not None else ():
            network = view.networks.get(endpoint.network)
            if wish is not None and network is not None:
                found[network.id].append(_party(wish, network, endpoint.ipv4, endpoint.ipv6))
    return {network: tuple(parties) for network, parties in found.items()}


def policies_of(
    view: View, directory: Directory, host: HostId, records: Mapping[InstanceId, Local], own: Own
) -> HostPolicies:
    """Endpoints are closed by what is wanted and by what stands: neither one that is about to be made nor one
    that is about to go is ever open in between."""
    if not view.policies:
        return HostPolicies()
    fleet = tuple(
        cidr
        for network in view.networks.values()
        for cidr in (*(subnet.cidr for subnet in network.spec.subnets), *network.vip_ranges)
    )
    places = {
        ident: Place(
            network=ident,
            name=network.spec.name,
            subnets=tuple(subnet.cidr for subnet in network.spec.subnets),
            fleet=fleet,
            parties=(*_told(network, directory, host), *own.get(ident, ())),
            services=network.vip_ranges,
        )
        for ident, network in view.networks.items()
    }
    return host_policies(tuple(view.policies.values()), dict(_feet(view, records)), places)


def _told(network: NetworkView, directory: Directory, host: HostId) -> Iterator[Party]:
    for member in directory.networks.get(network.id, {}).values():
        if member.host != host:
            yield _party_of(member, network)


def _feet(view: View, records: Mapping[InstanceId, Local]) -> Iterator[tuple[str, Party]]:
    for ident, wish in view.instances.items():
        record = records.get(ident)
        standing = {endpoint.network for endpoint in record.endpoints} if record is not None else set()
        for network in sorted({attachment.network for attachment in wish.attachments} | standing):
            if network in view.networks:
                yield endpoint_key(ident, network), _party(wish, view.networks[network])


def _party(wish: Instance, network: NetworkView, ipv4: str = "", ipv6: str = "") -> Party:
    return Party(
        name=wish.name,
        network=network.id,
        network_name=network.spec.name,
        service=wish.service_name,
        labels=wish.spec.labels,
        ipv4=ipv4,
        ipv6=ipv6,
    )


def _party_of(member: Member, network: NetworkView) -> Party:
    return Party(
        name=member.name,
        network=network.id,
        network_name=network.spec.name,
        service=member.service_name,
        labels=member.labels,
        ipv4=member.ipv4,
        ipv6=member.ipv6,
    )
