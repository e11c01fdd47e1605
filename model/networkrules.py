"""What a network may be, beyond what types say: spec → every problem at once, each with its path. Pure.

Overlaps with other networks and with what hosts reach are asked elsewhere: these rules need the input alone.
"""

from __future__ import annotations

import ipaddress

from model import netoptions
from model.errors import Problem
from model.spec import NetworkSpec, Subnet
from model.validate import is_address, is_mode, range_of, validate_name

DHCP_DRIVERS = ("macvlan", "nic")
"""Whose endpoints have MACs of their own."""


def validate_network(spec: NetworkSpec, path: str = "spec") -> list[Problem]:
    """Everything wrong with a network but overlaps with others."""
    problems = validate_name("network", spec.name, f"{path}.name")
    if is_mode(spec.name) or spec.name in ("bridge", "default"):
        problems.append(_p(f"{path}.name", f"{spec.name} is reserved"))
    for index, subnet in enumerate(spec.subnets):
        problems += _subnet(subnet, f"{path}.subnets[{index}]")
    if spec.ipam == "dhcp" and spec.driver not in DHCP_DRIVERS:
        drivers = " and ".join(DHCP_DRIVERS)
        problems.append(_p(f"{path}.ipam", f"addresses come by DHCP on {drivers} networks only"))
    if spec.ipam == "dhcp":
        problems += [
            _p(f"{path}.subnets[{index}].{field}", "nothing is given out of it: the DHCP server decides")
            for index, subnet in enumerate(spec.subnets)
            for field, value in (("ip_range", subnet.ip_range), ("exclude", subnet.exclude))
            if value
        ]
    ipv6 = spec.ipv6 or any(":" in subnet.cidr for subnet in spec.subnets)
    return problems + netoptions.problems(spec.driver, spec.options, f"{path}.options", ipv6=ipv6)


def _subnet(subnet: Subnet, at: str) -> list[Problem]:
    try:
        network = ipaddress.ip_network(subnet.cidr)
    except ValueError as error:
        return [_p(f"{at}.cidr", f"invalid subnet {subnet.cidr[:60]!r}: {_why(subnet.cidr, error)}")]
    problems: list[Problem] = []
    gateway = subnet.gateway
    if gateway and not (is_address(gateway) and ipaddress.ip_address(gateway) in network):
        problems.append(_p(f"{at}.gateway", f"{subnet.gateway[:60]!r} is not an address in {network}"))
    elif gateway and network.num_addresses > 2 and _is_edge(gateway, network):
        problems.append(_p(f"{at}.gateway", f"{gateway} is the network or broadcast address of {network}"))
    for index, text in enumerate(subnet.exclude):
        first, _, last = text.partition("-")
        ends = [range_of(end.strip()) for end in (first, last or first)]
        if not all(e is not None and e.version == network.version and e.subnet_of(network) for e in ends):  # type: ignore[arg-type]
            problems.append(_p(f"{at}.exclude[{index}]", f"{text[:60]!r} is not in {network}"))
        elif gateway and text == gateway:
            problems.append(_p(f"{at}.gateway", f"{gateway} is set aside for others"))
    if subnet.ip_range:
        try:
            inner = ipaddress.ip_network(subnet.ip_range)
            inside = inner.version == network.version and inner.subnet_of(network)  # type: ignore[arg-type]
        except ValueError:
            inside = False
        if not inside:
            problems.append(_p(f"{at}.ip_range", f"{subnet.ip_range[:60]!r} is not a range in {network}"))
    return problems


def _why(cidr: str, error: ValueError) -> object:
    """ip_network hides what is wrong with the address itself."""
    address = cidr.partition("/")[0]
    try:
        (ipaddress.IPv6Address if ":" in address else ipaddress.IPv4Address)(address)
    except ValueError as inner:
        return inner
    return error


def _is_edge(address: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    edges = {network.network_address, *([network.broadcast_address] if network.version == 4 else ())}
    return ipaddress.ip_address(address) in edges


def _p(path: str, message: str) -> Problem:
    return Problem(path=path, message=message)
