"""Docker's networks to a NetworkSpec and back. Pure.

The fleet is one engine to Docker's clients, and on one engine all containers of a bridge network reach each
other. So what they make as `bridge` (their default) is an overlay network here, shown as bridge; labels of
ours, which no client sees, remember that, and the names that it gave to addresses it keeps for itself.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from api.docker.errors import Refusal
from api.docker.networks.body import IpamWords, NetworkBody, PoolWords
from api.docker.times import moment
from model.api import InstanceInfo, NetworkInfo
from model.errors import InvalidInput
from model.records import Network
from model.spec import NetworkSpec, Subnet

OWN = "flota.docker."
DRIVER, KEPT = f"{OWN}driver", f"{OWN}auxiliary"
BRIDGE, OVERLAY = "bridge", "overlay"
FLEETWIDE = ("overlay", "host-gw")
"""Drivers whose networks Docker would call swarm-scoped."""
MODES: Mapping[str, str] = {"host": "host", "none": "null"}
"""Networks that are none of ours, but ways to have none, with the drivers that Docker gives them."""
_ASKS_NOTHING: Mapping[str, str] = {
    "com.docker.network.bridge.enable_ip_masquerade": "true",
    "com.docker.network.bridge.default_bridge": "false",
}
"""Options of Docker's, and the value that is true of our networks always."""


def spec_of(body: NetworkBody) -> NetworkSpec:
    """Raises InvalidInput, and Refusal in Docker's words."""
    if not body.name:
        raise InvalidInput("network name is required (field Name)")
    if body.driver in MODES.values():
        raise Refusal(403, f'only one instance of "{body.driver}" network is allowed')
    if not body.enable_ipv4:
        raise InvalidInput("EnableIPv4: false is not supported: every network has IPv4 addresses")
    hidden = [key for key in body.labels if key.startswith(OWN)]
    if hidden:
        raise InvalidInput(f"Labels: {hidden[0][:80]!r} is one of flota's own")
    bridge = body.driver in ("", "default", BRIDGE)
    subnets, kept = _subnets(body.ipam)
    labels = dict(body.labels)
    if bridge:
        labels[DRIVER] = BRIDGE
    if kept:
        labels[KEPT] = ",".join(f"{name}={address}" for name, address in kept.items())
    return NetworkSpec(
        name=body.name,
        driver=OVERLAY if bridge else body.driver,
        subnets=subnets,
        ipv6=body.enable_ipv6,
        internal=body.internal,
        options={k: v for k, v in body.options.items() if _ASKS_NOTHING.get(k) != v},
        labels=labels,
        ipam=_ipam(body.ipam.driver),
    )


def _ipam(driver: str) -> Any:
    if driver in ("", "default"):
        return ""
    if driver == "dhcp":
        return "dhcp"
    raise InvalidInput(f"IPAM.Driver: {driver[:40]!r} is not supported", hint="Known: default, dhcp")


def _subnets(ipam: IpamWords) -> tuple[tuple[Subnet, ...], dict[str, str]]:
    """Also the addresses to keep, by the names that they were given."""
    found, kept = [], {}
    for index, pool in enumerate(ipam.config):
        if not pool.subnet:
            if pool != PoolWords():
                raise InvalidInput(f"IPAM.Config[{index}].Subnet is missing")
            continue
        for name, address in pool.auxiliary_addresses.items():
            if not name or "," in name or "=" in name:
                raise InvalidInput(f"IPAM.Config[{index}].AuxiliaryAddresses: invalid name {name[:40]!r}")
            kept[name] = address
        found.append(
            Subnet(
                cidr=pool.subnet,
                gateway=pool.gateway,
                ip_range=pool.ip_range,
                exclude=tuple(pool.auxiliary_addresses.values()),
            )
        )
    return tuple(found), kept


def labels_of(network: Network) -> dict[str, str]:
    """Those that its user gave it."""
    return {key: value for key, value in network.spec.labels.items() if not key.startswith(OWN)}


def driver_of(network: Network) -> str:
    """As its user called it."""
    return network.spec.labels.get(DRIVER, network.spec.driver)


def scope_of(network: Network) -> str:
    return "swarm" if driver_of(network) in FLEETWIDE else "local"


def described(
    network: Network,
    *,
    ingress: bool = False,
    containers: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """As a list shows it, and an inspection with `containers`."""
    spec = network.spec
    return {
        "Name": spec.name,
        "Id": network.id,
        "Created": moment(network.created_at),
        "Scope": scope_of(network),
        "Driver": driver_of(network),
        "EnableIPv4": True,
        "EnableIPv6": spec.ipv6 or any(":" in subnet.cidr for subnet in spec.subnets),
        "IPAM": {"Driver": spec.ipam or "default", "Options": None, "Config": _pools(spec)},
        "Internal": spec.internal,
        "Attachable": not ingress and scope_of(network) == "swarm",
        "Ingress": ingress,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": dict(containers or {}),
        "Options": dict(spec.options),
        "Labels": labels_of(network),
    }


def _pools(spec: NetworkSpec) -> list[dict[str, Any]]:
    names = {
        address: name
        for name, _, address in (pair.partition("=") for pair in spec.labels.get(KEPT, "").split(","))
    }
    found = []
    for subnet in spec.subnets:
        pool: dict[str, Any] = {"Subnet": subnet.cidr}
        if subnet.ip_range:
            pool["IPRange"] = subnet.ip_range
        pool["Gateway"] = subnet.gateway or _first(subnet.cidr)
        if subnet.exclude:
            pool["AuxiliaryAddresses"] = {names.get(text, text): text for text in subnet.exclude}
        found.append(pool)
    return found


def _first(cidr: str) -> str:
    """The gateway of a subnet that names none."""
    network = ipaddress.ip_network(cidr)
    return str(network[min(1, network.num_addresses - 1)])


def mode(name: str) -> dict[str, Any]:
    """One of MODES, as Docker shows it."""
    return {
        "Name": name,
        "Id": name,
        "Created": moment(0),
        "Scope": "local",
        "Driver": MODES[name],
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": []},
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {},
        "Options": {},
        "Labels": {},
    }


def endpoints(network: Network, infos: Iterable[InstanceInfo]) -> dict[str, Any]:
    """Who is on it now, by id; not who was taken off, though its host is yet to do it."""
    found: dict[str, Any] = {}
    for info in infos:
        if all(wish.network != network.id for wish in info.instance.attachments):
            continue
        for foot in info.status.endpoints:
            if foot.network == network.id:
                found[info.instance.id] = {
                    "Name": info.instance.name,
                    "EndpointID": info.instance.id,
                    "MacAddress": foot.mac,
                    "IPv4Address": _within(network.spec, foot.ipv4),
                    "IPv6Address": _within(network.spec, foot.ipv6),
                }
    return found


def _within(spec: NetworkSpec, address: str) -> str:
    """With the length of its subnet's prefix, where that is known."""
    if not address:
        return ""
    for subnet in spec.subnets:
        if ipaddress.ip_address(address) in ipaddress.ip_network(subnet.cidr):
            return f"{address}/{subnet.cidr.partition('/')[2]}"
    return address


def unused(info: NetworkInfo, infos: Iterable[InstanceInfo]) -> bool:
    """Nobody is to be on it."""
    ident = info.network.id
    return not info.endpoints and not any(
        attachment.network == ident for one in infos for attachment in one.instance.attachments
    )
