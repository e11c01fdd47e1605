"""From networks and their members to the names that this host's resolver serves. Pure.

What a name leads to, in the order of precedence; a name never mixes two of these, so that nobody takes over a
service by calling an alias like it:

1. a container's name and the first 12 digits of its id: that container, ready or not
2. a service: its VIP, or its ready tasks; with none ready the name is known and leads nowhere
3. `tasks.SERVICE`: its ready tasks; `SERVICE.SLOT`: that replica, ready or not
4. an alias: all its holders that are ready; with none, the plain containers among them

Each is also known as `NAME.NETWORK`. Names that no DNS message can hold (a label over 63 bytes) are left out.
The predefined network `bridge` has no names, as in Docker, and nobody asks on `ingress`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from model.directory import Members
from model.ids import NetworkId, is_id
from model.spec import Struct
from model.status import Endpoint
from model.view import NetworkView
from net.host import INGRESS, PREDEFINED_BRIDGE
from net.resolver.state import Client, ResolverState, Zone
from net.zonenames import Vips, ZoneNames, canonical

NAMELESS = frozenset({PREDEFINED_BRIDGE, INGRESS})


class Asker(Struct):
    """A container of this host that may ask: where it stands, its `--dns`, its links by network."""

    endpoints: tuple[Endpoint, ...]
    dns: tuple[str, ...] = ()
    links: Mapping[NetworkId, Mapping[str, str]] = {}


def resolver_state(zones: Mapping[NetworkId, Zone], clients: Mapping[str, Client]) -> ResolverState:
    return ResolverState(zones={str(ident): found for ident, found in zones.items()}, clients=dict(clients))


def has_names(network: NetworkView) -> bool:
    return network.id not in NAMELESS


def zone(network: NetworkView, members: Members, vips: Vips | None = None) -> Zone:
    """Of a network that `has_names`."""
    made = ZoneNames(network)
    made.change(members, vips)
    return made.zone


def clients(askers: Iterable[Asker], networks: Mapping[NetworkId, NetworkView]) -> dict[str, Client]:
    """By each of their addresses. Networks that this host does not carry (yet) give no names."""
    found: dict[str, Client] = {}
    for asker in askers:
        known = [networks[e.network] for e in asker.endpoints if e.network in networks]
        zones = tuple(dict.fromkeys(str(network.id) for network in known if has_names(network)))
        if not zones:
            continue
        client = Client(
            zones=zones,
            upstreams=tuple(asker.dns),
            outside=not all(network.spec.internal for network in known),
            links={k: v for network in known[::-1] for k, v in _links(asker, network).items()},
        )
        for endpoint in asker.endpoints:
            found.update(dict.fromkeys(canonical((endpoint.ipv4, endpoint.ipv6)), client))
    return found


def _links(asker: Asker, network: NetworkView) -> dict[str, str]:
    """Each is to a name in that network alone."""
    suffix = f".{network.spec.name.lower()}"
    return {
        alias.lower(): (name[:12] if is_id(name) else name.lower()) + suffix
        for alias, name in asker.links.get(network.id, {}).items()
    }
