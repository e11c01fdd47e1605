"""Which addresses a build may fetch from: not this host's own, nor the site's, unless that was asked for; and
the fleet's API never.

A URL's host is resolved once, every address is judged, and the connection goes to an address that was judged:
a name that means another address a moment later gains nothing. Sources: the special-purpose registries of
RFC 6890; RFC 4291, 6052 and 3056 for IPv6 addresses that carry one of IPv4.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Collection

from model.errors import Forbidden, Unavailable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Lookup = Callable[[str, int], Awaitable[list[Address]]]
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_SITE = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
        "192.0.0.0/24", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
        "203.0.113.0/24", "::1/128", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32",
        "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10",
    )
)  # fmt: skip
RESOLVE = 10.0
"""Seconds for the name service."""


def meant(address: Address) -> Address:
    """The address of IPv4 that one of IPv6 stands for."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64 or (int(address) >> 32 == 0 and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def kind(address: Address) -> str:
    """What kind of address it is, if builds don't fetch from it unless that is allowed; empty: a public
    one."""
    address = meant(address)
    if address.is_loopback:
        return "loopback"
    if address.is_link_local:
        return "link-local"
    if any(address.version == network.version and address in network for network in _SITE):
        return "private"
    return ""


def never(address: Address) -> str:
    """What is wrong with it, whatever is allowed."""
    address = meant(address)
    if address.is_multicast:
        return "a multicast address"
    if address.is_unspecified:
        return "no address"
    if isinstance(address, ipaddress.IPv4Address) and int(address) >> 28 == 0xF:
        return "a reserved address"
    return ""


class Guard:
    """`own`: addresses and ports of the fleet's API; an empty address stands for all of this host."""

    def __init__(self, own: Collection[tuple[str, int]] = (), *, lookup: Lookup | None = None) -> None:
        self._lookup = lookup or looked_up
        self._own = {(meant(ipaddress.ip_address(host)), port) for host, port in own if host}
        self._own_ports = {port for host, port in own if not host}
        self._own_ports |= {port for address, port in self._own if is_this_host(address)}

    def check(self, address: Address, port: int, *, private: bool) -> None:
        """Raises Forbidden."""
        real = meant(address)
        if (real, port) in self._own or (port in self._own_ports and is_this_host(real)):
            raise Forbidden(f"{address} port {port} is the fleet's own API; a build may not fetch from it")
        if what := never(address):
            raise Forbidden(f"{address} is {what}; nothing is fetched from it")
        if not private and (what := kind(address)):
            raise Forbidden(
                f"{address} is a {what} address; a build does not fetch from there",
                hint="Give `--private-addresses` to flota build if it is meant to",
            )

    async def resolved(self, host: str, port: int, *, private: bool) -> list[Address]:
        """The addresses that a name may be fetched from. Raises Forbidden when none is left, Unavailable."""
        found = await self._lookup(host, port)
        good: list[Address] = []
        refusal: Forbidden | None = None
        for address in found:
            try:
                self.check(address, port, private=private)
                good.append(address)
            except Forbidden as error:
                refusal = refusal or error
        if not good:
            assert refusal is not None
            raise Forbidden(f"{host}: {refusal.message}", hint=refusal.hint)
        return good


async def looked_up(host: str, port: int) -> list[Address]:
    """By this host's name service. Raises Unavailable."""
    try:
        return [ipaddress.ip_address(host.partition("%")[0])]
    except ValueError:
        pass
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError) as error:
        raise Unavailable(
            f"{host[:253]} is unknown to the name service", hint="Check its name and this host's DNS"
        ) from error
    names = dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found)
    return [ipaddress.ip_address(name) for name in names]


def is_this_host(address: Address) -> bool:
    """Whether packets to it stay here: the kernel would send them from that very address. Nothing is sent."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            return bool(address.is_loopback or ipaddress.ip_address(probe.getsockname()[0]) == address)
    except OSError:
        return False
