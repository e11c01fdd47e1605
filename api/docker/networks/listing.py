"""`GET /networks` and `GET /networks/{id}`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from msgspec import field

from api.docker.networks.spec import MODES, described, endpoints, labels_of, mode, unused
from api.docker.parameters import Filters, check_filters, one_truth
from api.docker.ports import DockerPort
from api.docker.route import Call
from api.filters import label_fits
from model.api import InstanceInfo, NetworkInfo, ServiceInfo
from model.errors import InvalidInput, NotFound
from model.quantity import parse_moment
from model.records import Network
from model.spec import Struct

INGRESS = "ingress"
"""Name of the network that carries services' published ports."""
BUILTIN = "bridge"


class List(Struct):
    filters: Filters = field(default_factory=dict)


class Inspect(Struct):
    verbose: bool = False
    scope: str = ""


Shown = Mapping[str, Any]
FILTERS: Mapping[str, Callable[[Shown, str], bool]] = {
    "driver": lambda n, v: n["Driver"] == v,
    "id": lambda n, v: n["Id"].startswith(v),
    "label": lambda n, v: label_fits(n["Labels"], v),
    "name": lambda n, v: v in n["Name"],
    "scope": lambda n, v: n["Scope"] == v,
    "type": lambda n, v: _is_builtin(n) == (v == "builtin"),
}
KNOWN = (*FILTERS, "dangling")


def _is_builtin(shown: Shown) -> bool:
    return shown["Name"] in (*MODES, BUILTIN)


def fits(shown: Shown, filters: Filters) -> bool:
    """Values of one filter are alternatives, but for labels, which must all hold."""
    return all(
        not values or (all if key == "label" else any)(FILTERS[key](shown, value) for value in values)
        for key, values in filters.items()
        if key in FILTERS
    )


def checked(filters: Filters) -> Filters:
    """Raises InvalidInput."""
    check_filters(filters, KNOWN)
    for value in filters.get("type", ()):
        if value not in ("custom", "builtin"):
            raise InvalidInput(f"invalid filter: 'type'='{value[:40]}'")
    for value in filters.get("scope", ()):
        if value not in ("local", "swarm", "global"):
            raise InvalidInput(f"invalid filter: 'scope'='{value[:40]}'")
    return filters


async def list_(call: Call) -> list[dict[str, Any]]:
    filters = checked(call.query_as(List).filters)
    loose = one_truth(filters, "dangling")
    instances = call.port.list_instances()
    made = [
        _shown(info.network)
        for info in call.port.list_networks()
        if "dangling" not in filters
        or (unused(info, instances) and not _is_builtin(_shown(info.network))) == loose
    ]
    if "dangling" not in filters or not loose:
        made += [mode(name) for name in MODES]
    return sorted((shown for shown in made if fits(shown, filters)), key=lambda shown: str(shown["Name"]))


def _shown(network: Network) -> dict[str, Any]:
    return described(network, ingress=network.id == INGRESS)


async def inspect(call: Call) -> dict[str, Any]:
    query, ref = call.query_as(Inspect), call.ref()
    if query.scope not in ("", "local", "swarm", "global"):
        raise InvalidInput(f"invalid scope {query.scope[:40]!r}")
    if ref in MODES:
        made = mode(ref)
    else:
        info = call.port.get_network(ref)
        infos = call.port.list_instances()
        network = info.network
        made = described(network, ingress=network.id == INGRESS, containers=endpoints(network, infos))
        if peers := _peers(info, call.port):
            made["Peers"] = peers
        if query.verbose:
            made["Services"] = _services(network, call.port.list_services())
    if query.scope == "swarm":  # a service may be on each of them
        return {**made, "Scope": "swarm"}
    if query.scope and made["Scope"] != query.scope:
        raise NotFound(f"no such network: {ref}")
    return made


def _peers(info: NetworkInfo, port: DockerPort) -> list[dict[str, str]]:
    """The hosts that have a share of it."""
    hosts = {host.host.id: host.host for host in port.list_hosts()}
    having = dict.fromkeys(block.host for block in info.blocks if block.host in hosts)
    return [{"Name": hosts[ident].spec.name, "IP": hosts[ident].facts.address} for ident in having]


def _services(network: Network, services: Iterable[ServiceInfo]) -> dict[str, Any]:
    """Those on it, with where each of their tasks stands."""
    found: dict[str, Any] = {}
    for info in services:
        tasks = [task for one in info.instances for task in _tasks(network, one)]
        vip = info.service.vips.get(network.id)
        if tasks or vip is not None:
            found[info.service.spec.name] = {
                "VIP": vip.ipv4 if vip is not None else "<nil>",
                "Ports": [f"Target: {p.target}, Publish: {p.published}" for p in info.service.ingress],
                "LocalLBIndex": 0,
                "Tasks": tasks,
            }
    return found


def _tasks(network: Network, info: InstanceInfo) -> Sequence[dict[str, Any]]:
    return [
        {
            "Name": info.instance.name,
            "EndpointID": info.instance.id,
            "EndpointIP": foot.ipv4 or foot.ipv6,
            "Info": {"Host IP": info.host_name},
        }
        for foot in info.status.endpoints
        if foot.network == network.id
    ]


def prunable(filters: Filters, now: float | None = None) -> Callable[[Network], bool]:
    """Which networks may go, of those that nobody uses. Raises InvalidInput."""
    check_filters(filters, ("until", "label", "label!"))
    wanted: list[Callable[[Network], bool]] = []
    for value in filters.get("until", ()):
        wanted.append(partial(_made_before, parse_moment(value, time.time() if now is None else now)))
    for key in ("label", "label!"):
        for value in filters.get(key, ()):
            wanted.append(partial(_labelled, value, key == "label"))
    return lambda network: all(fits_(network) for fits_ in wanted)


def _made_before(at: float, network: Network) -> bool:
    return network.created_at < at


def _labelled(wish: str, has: bool, network: Network) -> bool:
    return label_fits(labels_of(network), wish) is has
