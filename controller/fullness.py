"""How full a network's subnets are, in words and by share. Pure.

What is used is what hosts reported last; an address that was given back rests on its host for a while, which
that host alone knows.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence

from controller.snapshot import Cluster
from model.ids import InstanceId
from model.records import Block, Network
from model.spec import Subnet
from model.status import InstanceStatus
from net.ipam import room


def fullness(
    cluster: Cluster,
    network: Network,
    blocks: Sequence[Block],
    statuses: Mapping[InstanceId, InstanceStatus],
    now: float,
) -> Iterable[str]:
    """`10.1.2.0/29: 5 of 5 used, 0 resting` for each subnet; what hosts hold without using it is told too."""
    feet = [
        foot
        for ident in cluster.on_network(network.id)
        if (status := statuses.get(ident)) is not None
        for foot in status.endpoints
        if foot.network == network.id
    ]
    used = [ipaddress.ip_address(a) for foot in feet for a in (foot.ipv4, foot.ipv6) if a]
    for subnet in network.spec.subnets:
        whole = ipaddress.ip_network(subnet.cidr)
        size = room(network.spec, subnet.cidr, ())
        inside = sum(address in whole for address in used)
        resting = sum(_size(network, b) for b in blocks if b.quarantined_until > now and _in(b, subnet))
        shares = [b for b in blocks if not b.holder and not b.quarantined_until and _in(b, subnet)]
        idle = sum(_size(network, b) for b in shares) - sum(
            any(address in ipaddress.ip_network(b.cidr) for b in shares) for address in used
        )
        rest = f", {idle} in hosts' shares" if idle > 0 else ""
        yield f"{subnet.cidr}: {inside} of {size} used, {resting} resting{rest}"


def _size(network: Network, block: Block) -> int:
    return room(network.spec, block.cidr, ())


def _in(block: Block, subnet: Subnet) -> bool:
    first = ipaddress.ip_address(block.cidr.partition("/")[0])
    return first in ipaddress.ip_network(subnet.cidr)
