"""Published ports: the elements of the port maps, and whose port clashes with whose. Pure.

A port without a host address is on every address of the host, IPv4 and, where the endpoint has it, IPv6; one
on 0.0.0.0 or :: is on every address of that family. The maps are keyed by what arrives, so a change of one
container's ports touches only its own elements. A port with an allow-list stands in maps whose keys end in
the client's range: for anybody else it is not published at all.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

import msgspec

from model.errors import InUse, InvalidInput
from model.hostports import addresses_overlap
from model.ids import InstanceId, short
from model.status import BoundPort
from net.host import PublishRequest

MAPS = ("port4", "host4", "port6", "host6", "portfor4", "hostfor4", "portfor6", "hostfor6")
"""port*: any address of the host; host*: the one in the key; *for*: for the clients in the key."""


ANY4, ANY6 = "0.0.0.0", "::"  # noqa: S104 - all addresses of one family


def elements(requests: Iterable[PublishRequest]) -> Mapping[str, Mapping[str, str]]:
    """Per map of `MAPS`, the elements for these containers."""
    found: dict[str, dict[str, str]] = {name: {} for name in MAPS}
    for request in requests:
        for port in request.ports:
            if port.proxy_protocol:
                continue  # the proxy's (net.proxied)
            version = ipaddress.ip_address(port.host_ip).version if port.host_ip else 0
            if request.ipv4 and version in (0, 4):
                _put(found, 4, port, "" if port.host_ip == ANY4 else port.host_ip, request.ipv4)
            if request.ipv6 and (version == 6 or not version):
                _put(found, 6, port, "" if port.host_ip == ANY6 else port.host_ip, request.ipv6)
    return found


def _put(found: dict[str, dict[str, str]], version: int, port: BoundPort, host_ip: str, inner: str) -> None:
    """A wish for one family; an allow-list without a range of it means nobody there."""
    key = f"{port.protocol} . {port.published}"
    base, key = ("host", f"{host_ip} . {key}") if host_ip else ("port", key)
    clients = allowed(port.allow, version)
    if clients is None:
        found[f"{base}{version}"][key] = f"{inner} . {port.target}"
        return
    for client in clients:
        found[f"{base}for{version}"][f"{key} . {client}"] = f"{inner} . {port.target}"


def allowed(ranges: Iterable[str], version: int) -> tuple[str, ...] | None:
    """Ranges of one family without overlaps, in nft's notation; None without a list. Everybody by a list is
    two ranges: a list opens a port where the host's firewall would not, so it stays one."""
    given = [ipaddress.ip_network(text) for text in ranges]
    if not given:
        return None
    mine = [network for network in given if network.version == version]
    merged = list(ipaddress.collapse_addresses(mine))  # type: ignore[type-var]
    return tuple(
        str(n.network_address) if n.prefixlen == n.max_prefixlen else str(n)  # as nft lists them
        for network in merged
        for n in (network.subnets() if network.prefixlen == 0 else (network,))
    )


def normal(request: PublishRequest) -> PublishRequest:
    """The request with host addresses in canonical form. Raises InvalidInput, naming the port."""
    ports = tuple(_normal(port) for port in request.ports)
    return PublishRequest(instance=request.instance, ipv4=request.ipv4, ipv6=request.ipv6, ports=ports)


def clash(request: PublishRequest, others: Iterable[PublishRequest]) -> None:
    """Raises InUse when one of its ports is published by another container, or twice by itself."""
    taken: list[tuple[InstanceId, BoundPort]] = [
        (other.instance, port)
        for other in others
        if other.instance != request.instance
        for port in other.ports
    ]
    for port in request.ports:
        for owner, other in taken:
            if overlaps(port, other):
                who = "itself" if owner == request.instance else short(owner)
                raise InUse(
                    f"port {port.published}/{port.protocol} is already published by {who} on this host",
                    hint="Choose another port, or stop that container",
                )
        taken.append((request.instance, port))


def overlaps(a: BoundPort, b: BoundPort) -> bool:
    """Whether some packet could be for both."""
    if (a.protocol, a.published) != (b.protocol, b.published):
        return False
    return addresses_overlap(a.host_ip, b.host_ip)


def _normal(port: BoundPort) -> BoundPort:
    if not 0 < port.published < 65536 or not 0 < port.target < 65536:
        raise InvalidInput(
            f"port {port.published}:{port.target} is out of range", hint="Ports are 1 to 65535"
        )
    if not port.host_ip:
        return port
    try:
        address = ipaddress.ip_address(port.host_ip)
    except ValueError as error:
        raise InvalidInput(f"published port {port.published}: {port.host_ip!r} is no address") from error
    return msgspec.structs.replace(port, host_ip=str(address))
