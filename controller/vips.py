"""Addresses of services: one per network that a service is on, the same on every host. Pure.

Invariants: two services never have one address; a service keeps its address on a network as long as it is on
it. An address is first looked for where the service's id leads to, so that one that was given back is seldom
given to another soon after.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping

from controller.addressing import unique_local
from controller.snapshot import Cluster
from model.errors import Exhausted
from model.ids import NetworkId, ServiceId
from model.records import FleetSettings, ResolvedAttachment, Service, Vip
from model.spec import ServiceSpec


def vip_ranges(settings: FleetSettings) -> tuple[str, str]:
    """IPv4 and IPv6; the latter out of the fleet's own, under the number that no network has."""
    return settings.vip_range, unique_local(settings.fleet_id, 0)


def vips_of(
    cluster: Cluster,
    ident: ServiceId,
    spec: ServiceSpec,
    attachments: tuple[ResolvedAttachment, ...],
    known: Mapping[NetworkId, Vip],
) -> Mapping[NetworkId, Vip]:
    """The service's addresses, those of `known` kept. None on the predefined bridge, where there are no names
    either. Raises Exhausted."""
    if spec.endpoint_mode != "vip":
        return {}
    found: dict[NetworkId, Vip] = {}
    taken: set[int] | None = None
    for attachment in attachments:
        network = cluster.networks[attachment.network]
        if network.predefined:
            continue
        kept = known.get(network.id)
        if kept is not None:
            found[network.id] = kept
            continue
        taken = _taken(cluster) if taken is None else taken
        index = _free(cluster.settings, f"{ident}/{network.id}", taken)
        taken.add(index)
        versions = {ipaddress.ip_network(s.cidr).version for s in network.spec.subnets}
        range4, range6 = map(ipaddress.ip_network, vip_ranges(cluster.settings))
        found[network.id] = Vip(
            ipv4=str(range4[index]) if 4 in versions else "",
            ipv6=str(range6[index]) if 6 in versions else "",
        )
    return found


def _taken(cluster: Cluster) -> set[int]:
    return {
        _index(cluster.settings, vip)
        for service in cluster.services.values()
        for vip in service.vips.values()
    }


def _index(settings: FleetSettings, vip: Vip) -> int:
    text, whole = (vip.ipv4, 0) if vip.ipv4 else (vip.ipv6, 1)
    return int(ipaddress.ip_address(text)) - int(ipaddress.ip_network(vip_ranges(settings)[whole])[0])


def _free(settings: FleetSettings, seed: str, taken: set[int]) -> int:
    """An index within the IPv4 range, without its first and last."""
    room = ipaddress.ip_network(settings.vip_range).num_addresses - 2
    start = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big") % room
    for step in range(room):
        index = 1 + (start + step) % room
        if index not in taken:
            return index
    raise Exhausted(f"all service addresses of {settings.vip_range} are taken", hint="Remove unused services")


def same_addresses(old: Service, new: Service) -> bool:
    """Whether no View shows a difference."""
    return (old.vips, old.spec.balance) == (new.vips, new.spec.balance)
