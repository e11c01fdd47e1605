"""Which of the addresses that a host reports are its instances' to use. Pure.

Other hosts lead connections, names and policies to what is reported: a host that was taken over could report
any address, or a range. Invariant: what is let through is one address in a subnet of the network; where hosts
share the subnets, it lies in the host's own share or is led to it by a lease.

Judged is by the records of the moment; a host has its shares before it has anything of them to report.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from msgspec.structs import replace

from controller.addressing import spans_hosts
from controller.snapshot import Cluster
from model.factrules import address_fault
from model.ids import HostId, NetworkId
from model.records import Instance, Network
from model.spec import Subnet
from model.status import Endpoint, InstanceStatus
from net.spans import Span, address_span, lies_in, span_of
from net.subnets import gateway

MOST_WORDS = 2
"""Of what was left out of one status, so many are told."""
Shares = Mapping[NetworkId, tuple[tuple[int, Span], ...]]
"""A host's blocks of each network."""


def shares_of(cluster: Cluster, host: HostId) -> Shares:
    """Fixed addresses are not among them: those have keys of their own."""
    found: dict[NetworkId, tuple[tuple[int, Span], ...]] = {}
    for block in cluster.blocks_by_host.get(host, {}).values():
        if not block.holder:
            found[block.network] = (*found.get(block.network, ()), span_of(block.cidr))
    return found


def judged(
    cluster: Cluster, instance: Instance, status: InstanceStatus, shares: Shares
) -> tuple[InstanceStatus, str]:
    """The status without addresses that are not the instance's, and what was left out, in words; `shares` are
    its host's."""
    endpoints, faults = [], []
    for endpoint in status.endpoints:
        good = dict[str, str]()
        for field, version in (("ipv4", 4), ("ipv6", 6)):
            address: str = getattr(endpoint, field)
            fault = _fault(cluster, instance, endpoint, address, version, shares) if address else ""
            if fault:
                good[field] = ""
                faults.append(fault)
        endpoints.append(replace(endpoint, **good) if good else endpoint)
    if not faults:
        return status, ""
    words = f"an address that it reports for {instance.name} is left out: {'; '.join(faults[:MOST_WORDS])}"
    return replace(status, endpoints=tuple(endpoints)), words


def _fault(
    cluster: Cluster, instance: Instance, endpoint: Endpoint, address: str, version: int, shares: Shares
) -> str:
    """Why it is not the instance's, "" when it is. Of networks that are gone nobody is led anywhere."""
    if fault := address_fault(address):
        return fault
    network = cluster.networks.get(endpoint.network)
    found = address_span(address)
    if network is None:
        return ""
    name = network.spec.name
    if found[0] != version or not lies_in(found, (span_of(s.cidr) for s in network.spec.subnets)):
        return f"{address} is in no IPv{version} subnet of {name}"
    if not spans_hosts(network) or network.spec.ipam == "dhcp":
        return ""
    if any(address == _gateway(s.cidr, s.gateway) for s in network.spec.subnets):
        return f"{address} is the gateway of {name}"
    if _leased(cluster, network, instance, address, shares.get(network.id, ()), found):
        return ""
    return f"{address} of {name} is not in its host's share"


def _leased(
    cluster: Cluster,
    network: Network,
    instance: Instance,
    address: str,
    shares: Iterable[tuple[int, Span]],
    found: tuple[int, Span],
) -> bool:
    lease = cluster.blocks.get(f"{network.id}/{address}/{128 if ':' in address else 32}")
    if lease is not None:
        # one that another host awaits may still be held by who had it out of its share
        return instance.host in (lease.host, lease.awaits)
    if lies_in(found, shares):
        return True
    promised = (a for a in instance.attachments if a.network == network.id)
    return any(address in (a.ipv4, a.ipv6) for a in promised)


@lru_cache(1 << 12)
def _gateway(cidr: str, chosen: str) -> str:
    return str(gateway(Subnet(cidr=cidr, gateway=chosen)))
