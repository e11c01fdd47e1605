"""Addresses of services: one per network that a service is on, the same on every host. Pure.

Invariants: two services never have one address; a service keeps its address on a network as long as it is on
it. An address is first looked for where the service's id leads to, so that one that was given back is seldom
given to another soon after.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping

from controller.snapshot import Cluster
from model.errors import Exhausted
from model.ids import NetworkId, ServiceId
from model.records import Network, ResolvedAttachment, Service, Vip
from model.spec import ServiceSpec


def vips_of(
    cluster: Cluster,
    ident: ServiceId,
    spec: ServiceSpec,
    attachments: tuple[ResolvedAttachment, ...],
    known: Mapping[NetworkId, Vip],
) -> Mapping[NetworkId, Vip]:
    """The service's addresses, those of `known` kept. None on networks without a range for them, as the
    predefined bridge, where there are no names either. Raises Exhausted."""
    if spec.endpoint_mode != "vip":
        return {}
    found: dict[NetworkId, Vip] = {}
    for attachment in attachments:
        network = cluster.networks[attachment.network]
        if network.id in known:
            found[network.id] = known[network.id]
        elif network.vip_ranges:
            found[network.id] = _free(cluster, network, ident)
    return found


def _free(cluster: Cluster, network: Network, ident: ServiceId) -> Vip:
    """One index serves in all ranges; the first and last of the smallest stay free."""
    ranges = [ipaddress.ip_network(cidr) for cidr in network.vip_ranges]
    room = min(r.num_addresses for r in ranges) - 2
    services = cluster.services_on.get(network.id)
    taken = {service.vips[network.id] for service in services.values()} if services is not None else set()
    start = int.from_bytes(hashlib.sha256(f"{ident}/{network.id}".encode()).digest()[:8], "big")
    for step in range(room):
        addresses = {r.version: str(r[1 + (start + step) % room]) for r in ranges}
        vip = Vip(ipv4=addresses.get(4, ""), ipv6=addresses.get(6, ""))
        if vip not in taken:
            return vip
    raise Exhausted(
        f"network {network.spec.name} has no address left for a service in {', '.join(network.vip_ranges)}",
        hint="Use --endpoint-mode dnsrr, or another network",
    )


def same_addresses(old: Service, new: Service) -> bool:
    """Whether no View shows a difference."""
    before, after = (
        (service.vips, service.ingress, service.removed, service.spec.balance) for service in (old, new)
    )
    return before == after
