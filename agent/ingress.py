"""Published ports of services, as this host sees them: by which addresses its own instances answer, and which
ports it can open. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from agent import feet
from agent.members import wish_of
from agent.record import Local
from model.ids import InstanceId
from model.view import View
from net.host import INGRESS
from net.loadbalance import VirtualService

Inner = Mapping[InstanceId, tuple[str, str]]
"""IPv4 and IPv6 address with which an instance answers, empty where that is the one it has on the ingress
network: where it has no other way out in that family, or one that does not pass this host."""
Port = tuple[str, int]
"""(protocol, port)."""


def inner_addresses(view: View, records: Mapping[InstanceId, Local]) -> Inner:
    found: dict[InstanceId, tuple[str, str]] = {}
    for ident, record in records.items():
        wish = wish_of(view, record)
        if wish is None or not any(endpoint.network == INGRESS for endpoint in record.endpoints):
            continue
        ways = feet.ways_out(wish.attachments, view.networks)
        led = feet.led(ways, record.endpoints) if ways.ipv4 or ways.ipv6 else ("", "")
        away = (feet.is_on_site(way, view.networks) for way in (ways.ipv4, ways.ipv6))
        ipv4, ipv6 = ("" if site else address for address, site in zip(led, away, strict=True))
        found[ident] = ipv4, ipv6
    return found


def opened(
    services: Mapping[str, VirtualService], before: frozenset[Port], free: Callable[[str, int], bool]
) -> tuple[dict[str, VirtualService], frozenset[Port], frozenset[Port]]:
    """The services with those ports that this host can open, these, and those that it can't. What was open
    `before` stays: others may not have it meanwhile, or get nothing by it. Ports of the proxy are not looked
    at: it holds them itself, and says so when it can't."""
    ports = [port for service in services.values() for port in service.ports]
    wanted = {(port.protocol, port.published) for port in ports}
    proxied = {(port.protocol, port.published) for port in ports if port.proxy_protocol}
    taken = frozenset(port for port in wanted - before - proxied if not free(*port))
    kept = {key: _without(service, taken) for key, service in services.items()}
    return kept, frozenset(wanted - taken), taken


def _without(service: VirtualService, taken: frozenset[Port]) -> VirtualService:
    ports = tuple(port for port in service.ports if (port.protocol, port.published) not in taken)
    return service if ports == service.ports else replace(service, ports=ports)
