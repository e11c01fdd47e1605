"""How full a network's subnets are, in words and by share. Pure.

What is used is what hosts reported last; an address that was given back rests on its host for a while, which
that host alone knows.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence

from controller.snapshot import Cluster
from model.ids import InstanceId
from model.records import Block, Network
from model.status import InstanceStatus
from net.ipam import room
from net.spans import Span, span_of


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
    used = [_number(a) for foot in feet for a in (foot.ipv4, foot.ipv6) if a]
    for subnet in network.spec.subnets:
        whole = span_of(subnet.cidr)
        inside = sorted(number for version, number in used if _in((version, number), whole))
        mine = [b for b in blocks if _in(_number(b.cidr.partition("/")[0]), whole)]
        size = room(network.spec, subnet.cidr, ())
        resting = sum(room(network.spec, b.cidr, ()) for b in mine if b.quarantined_until > now)
        shares = [b.cidr for b in mine if not b.holder and not b.quarantined_until]
        idle = sum(room(network.spec, cidr, ()) for cidr in shares) - sum(_count(inside, c) for c in shares)
        rest = f", {idle} in hosts' shares" if idle > 0 else ""
        yield f"{subnet.cidr}: {len(inside)} of {size} used, {resting} resting{rest}"


def _number(address: str) -> tuple[int, int]:
    """Its family, and itself as a number."""
    found = ipaddress.ip_address(address)
    return found.version, int(found)


def _in(address: tuple[int, int], whole: tuple[int, Span]) -> bool:
    version, (first, last) = whole
    return address[0] == version and first <= address[1] <= last


def _count(numbers: Sequence[int], cidr: str) -> int:
    """How many of these, in order, are in that range."""
    _, (first, last) = span_of(cidr)
    return bisect_right(numbers, last) - bisect_left(numbers, first)
