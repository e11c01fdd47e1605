"""Which networks an instance is to stand on, under which interface names, and which of them lead out. Pure.

Invariants: an interface that stands keeps its name; of each address family exactly one endpoint is the way
out wherever a network has one: of the highest priority, among equals the first in the order of the
attachments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import count

from model.ids import NetworkId
from model.netoptions import SITE_DRIVERS
from model.records import ResolvedAttachment
from model.spec import Struct
from model.status import Endpoint
from model.view import NetworkView

FAMILIES = (4, 6)


class WaysOut(Struct):
    """The networks by which packets to everywhere else leave, empty where none does."""

    ipv4: NetworkId = NetworkId("")
    ipv6: NetworkId = NetworkId("")


def names(
    attachments: Sequence[ResolvedAttachment], standing: Iterable[Endpoint] = ()
) -> Mapping[NetworkId, str]:
    """The interface of each: the one that stands, the one asked for, else the lowest ethN that no other has.
    `standing` are all that are there now, also those that are about to go."""
    have = {endpoint.network: endpoint.ifname for endpoint in standing}
    asked = {a.network: a.ifname for a in attachments if a.ifname}
    found = {a.network: asked.get(a.network) or have.get(a.network, "") for a in attachments}
    taken = {*have.values(), *found.values()}
    free = (name for number in count() if (name := f"eth{number}") not in taken)
    return {network: name or next(free) for network, name in found.items()}


def ways_out(attachments: Sequence[ResolvedAttachment], networks: Mapping[NetworkId, NetworkView]) -> WaysOut:
    """Networks that are internal, or not known here (yet), lead nowhere."""
    ordered = sorted(attachments, key=lambda a: -a.priority)
    first = [networks[a.network] for a in ordered if a.network in networks]
    leading = {
        version: next((n.id for n in first if not n.spec.internal and _has(n, version)), NetworkId(""))
        for version in FAMILIES
    }
    return WaysOut(ipv4=leading[4], ipv6=leading[6])


def _has(network: NetworkView, version: int) -> bool:
    return any((":" in subnet.cidr) is (version == 6) for subnet in network.spec.subnets)


def on_site(ways: WaysOut, networks: Mapping[NetworkId, NetworkView]) -> str:
    """The name of the way out if that is a network on the site's own: ports are not published there, for
    answers would not come by this host."""
    found = (way for way in (ways.ipv4, ways.ipv6) if is_on_site(way, networks))
    return next((networks[way].spec.name for way in found), "")


def is_on_site(network: NetworkId, networks: Mapping[NetworkId, NetworkView]) -> bool:
    """Whether it is a network on the site's own."""
    return network in networks and networks[network].spec.driver in SITE_DRIVERS


def led(ways: WaysOut, endpoints: Sequence[Endpoint]) -> tuple[str, str]:
    """The addresses (IPv4, IPv6) at which published ports are served: answers must leave by the way by which
    the question came. Without any way out, those of the first endpoint, for the host itself."""
    if not ways.ipv4 and not ways.ipv6 and endpoints:
        return endpoints[0].ipv4, endpoints[0].ipv6
    by_network = {endpoint.network: endpoint for endpoint in endpoints}
    four, six = by_network.get(ways.ipv4), by_network.get(ways.ipv6)
    return four.ipv4 if four else "", six.ipv6 if six else ""
