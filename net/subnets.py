"""What a network's subnets mean for its endpoints: family, gateway, prefix, reserved addresses. Pure.

Decided here once for every driver: the gateway is what the spec says or else the first usable address; the
network and broadcast addresses of an IPv4 subnet are never given out, in a /31 or /127 (RFC 3021, RFC 6164)
there is no such pair and both addresses are usable, /32 and /128 are refused as subnets of a network.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from model.errors import InvalidInput
from model.spec import NetworkSpec, Subnet

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Range = ipaddress.IPv4Network | ipaddress.IPv6Network


def gateway(subnet: Subnet) -> Address:
    """Of that subnet. Raises InvalidInput when the spec's lies outside or is no host address."""
    whole = ipaddress.ip_network(subnet.cidr)
    if subnet.gateway:
        chosen = ipaddress.ip_address(subnet.gateway)
        if chosen not in whole or chosen in set(edges(whole)):
            raise InvalidInput(
                f"gateway {subnet.gateway} is no host address of {subnet.cidr}",
                hint="Leave it out to get the first address",
            )
        return chosen
    return whole[0] if whole.num_addresses <= 2 else whole[1]


def edges(whole: Range) -> Iterable[Address]:
    """Network and broadcast address (IPv6: the subnet-router anycast address, RFC 4291 2.6.1)."""
    if whole.num_addresses > 2:
        yield whole[0]
        if whole.version == 4:
            yield whole[-1]


def subnet_of(spec: NetworkSpec, address: str) -> Subnet:
    """The subnet that holds `address`. Raises InvalidInput when none does."""
    wanted = ipaddress.ip_address(address)
    for subnet in spec.subnets:
        whole = ipaddress.ip_network(subnet.cidr)
        if whole.version == wanted.version and wanted in whole:
            return subnet
    ranges = ", ".join(s.cidr for s in spec.subnets) or "none"
    raise InvalidInput(f"address {address} is in no subnet of network {spec.name} ({ranges})")


def host_address(subnet: Subnet, blocks: Iterable[str]) -> str:
    """The host's own address in an overlay: the first of its first block of at least four addresses in
    that subnet, by which other hosts' containers answer it; "" when it has no such block."""
    whole = ipaddress.ip_network(subnet.cidr)
    reserved = {*edges(whole), gateway(subnet)}
    ranges = (ipaddress.ip_network(block) for block in blocks)
    inside = (r for r in ranges if r.version == whole.version and r.num_addresses >= 4 and r[0] in whole)
    first = min(inside, default=None, key=lambda r: int(r.network_address))
    if first is None:
        return ""
    return next(str(first[i]) for i in range(3) if first[i] not in reserved)
