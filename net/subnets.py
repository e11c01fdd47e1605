"""What a network's subnets mean for its endpoints: family, gateway, prefix, reserved addresses. Pure.

Decided here once for every driver: the gateway is what the spec says or else the first usable address; the
network and broadcast addresses of an IPv4 subnet are never given out, in a /31 or /127 (RFC 3021, RFC 6164)
there is no such pair and both addresses are usable, /32 and /128 are refused as subnets of a network.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from model.errors import InvalidInput
from model.netoptions import SITE_DRIVERS, mode
from model.spec import NetworkSpec, Subnet
from model.view import NetworkView
from net.naming import link_local

APART = ("private", "passthru")
"""Modes of macvlan in which an endpoint has no neighbour on its host, and no way to it."""
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
    aside = [span(text) for text in subnet.exclude]
    ranges = (ipaddress.ip_network(block) for block in blocks)
    inside = (r for r in ranges if r.version == whole.version and r.num_addresses >= 4 and r[0] in whole)
    first = min(inside, default=None, key=lambda r: int(r.network_address))
    if first is None:
        return ""
    free = (a for a in first if a not in reserved and not any(low <= int(a) <= high for low, high in aside))
    return str(next(free, ""))


def interface_address(spec: NetworkSpec, mac: str) -> str:
    """The IPv6 address that an interface makes of its MAC in the network's first /64 (RFC 4862, RFC 4291
    appendix A); empty where there is none."""
    six = (ipaddress.ip_network(subnet.cidr) for subnet in spec.subnets if ":" in subnet.cidr)
    whole = next((found for found in six if found.prefixlen == 64), None)
    if whole is None:
        return ""
    identifier = int(ipaddress.IPv6Address(link_local(mac))) & ((1 << 64) - 1)
    return str(whole[identifier])


def host_addresses(view: NetworkView) -> tuple[str, ...]:
    """What the host itself is called in a network, of each subnet in which it has a block for that."""
    found = (host_address(subnet, view.blocks) for subnet in view.spec.subnets)
    return tuple(address for address in found if address)


def reaches_host(spec: NetworkSpec) -> bool:
    """Whether the host has a foot of its own on a network of the site's."""
    if spec.driver == "nic":
        return True
    return spec.driver in SITE_DRIVERS and mode(spec.driver, spec.options) not in APART


def resolvers(view: NetworkView) -> tuple[str, ...]:
    """Where containers of a network ask this host for names: its gateways, or, where those are the site's,
    the host's own addresses there."""
    if view.spec.driver in SITE_DRIVERS:
        return host_addresses(view) if reaches_host(view.spec) else ()
    return tuple(str(gateway(subnet)) for subnet in view.spec.subnets)


def ends(text: str) -> tuple[Address, Address]:
    """`10.1.0.5`, `10.1.0.0/28` or `10.1.0.5-10.1.0.9` as first and last. Raises InvalidInput."""
    try:
        first, dash, last = text.partition("-")
        if dash:
            return ipaddress.ip_address(first.strip()), ipaddress.ip_address(last.strip())
        whole = ipaddress.ip_network(text)
    except ValueError as error:
        raise InvalidInput(f"invalid exclusion {text[:60]!r}: {error}") from error
    return whole[0], whole[-1]


def span(text: str) -> tuple[int, int]:
    """As `ends`, as numbers."""
    first, last = ends(text)
    return int(first), int(last)
