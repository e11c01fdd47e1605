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

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from model.directory import Member, Members
from model.ids import InstanceId, NetworkId, short
from model.spec import Struct
from model.status import Endpoint
from model.view import NetworkView
from net.host import INGRESS, PREDEFINED_BRIDGE
from net.resolver.state import MOST_NAME, Client, ResolverState, Zone, fits
from net.subnets import gateway

NAMELESS = frozenset({PREDEFINED_BRIDGE, INGRESS})
Vips = Mapping[str, tuple[str, str]]
"""Service name → its IPv4 and IPv6 address, each may be empty."""


class Asker(Struct):
    """A container of this host that may ask: where it stands, and its `--dns`."""

    endpoints: tuple[Endpoint, ...]
    dns: tuple[str, ...] = ()


def resolver_state(zones: Mapping[NetworkId, Zone], clients: Mapping[str, Client]) -> ResolverState:
    """Keys in order, so that equal states are equal bytes."""
    return ResolverState(
        zones={str(ident): zones[ident] for ident in sorted(zones)},
        clients={address: clients[address] for address in sorted(clients)},
    )


def has_names(network: NetworkView) -> bool:
    return network.id not in NAMELESS


def zone(network: NetworkView, members: Members, vips: Vips | None = None) -> Zone:
    """Of a network that `has_names`."""
    virtual = {service.lower(): _canonical(pair) for service, pair in (vips or {}).items()}
    feet = [_foot(ident, members[ident]) for ident in sorted(members)]
    services: dict[str, list[_Foot]] = {service: [] for service in virtual}
    for foot in feet:
        if foot.service:
            services.setdefault(foot.service, []).append(foot)
    named, reverse = _names(feet, services, virtual), _reverse(network.spec.name.lower(), feet, virtual)
    return Zone(
        network=network.spec.name.lower(),
        listen=tuple(str(gateway(subnet)) for subnet in network.spec.subnets),
        ranges=tuple(subnet.cidr for subnet in network.spec.subnets),
        names={name: named[name] for name in sorted(named)},
        tasks={s: tuple(t.told for t in tasks if t.member.ready) for s, tasks in sorted(services.items())},
        reverse=dict(sorted(reverse.items())),
    )


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
        )
        for endpoint in asker.endpoints:
            found.update(dict.fromkeys(_addresses((endpoint,)), client))
    return found


class _Foot(NamedTuple):
    """A member with its names as they are asked for."""

    member: Member
    short: str
    told: str
    """The name that answers give: its own where that can be said."""
    service: str
    addresses: tuple[str, ...]


def _foot(ident: InstanceId, member: Member) -> _Foot:
    name, brief = member.name.lower(), short(ident)
    told = name if fits(name) else brief
    return _Foot(member, brief, told, member.service_name.lower(), _addresses((member,)))


def _names(
    feet: Sequence[_Foot], services: Mapping[str, Sequence[_Foot]], virtual: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    said = {service for service in services if fits(f"tasks.{service}")}
    own, slots = _Gathered(), _Gathered()
    aliases: dict[str, list[_Foot]] = defaultdict(list)
    for foot in feet:
        own.add(foot.told, foot)
        if foot.told != foot.short:
            own.add(foot.short, foot)
        if foot.service in said and foot.member.slot:
            slots.add(f"{foot.service}.{foot.member.slot}", foot)
        for alias in {alias.lower() for alias in foot.member.aliases}:
            if fits(alias):
                aliases[alias].append(foot)
    ready = {s: _joined(t for t in services[s] if t.member.ready) for s in said}
    return {
        **{alias: _joined(_holders(found)) for alias, found in aliases.items()},
        **slots.found,
        **{f"tasks.{service}": addresses for service, addresses in ready.items()},
        **ready,
        **{s: addresses for s, addresses in virtual.items() if s in said},
        **own.found,
    }


class _Gathered:
    """Names that mostly have one holder, and all its addresses where there are more."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[str, ...]] = {}

    def add(self, name: str, foot: _Foot) -> None:
        before = self.found.get(name)
        self.found[name] = foot.addresses if before is None else before + foot.addresses


def _joined(feet: Iterable[_Foot]) -> tuple[str, ...]:
    return tuple(address for foot in feet for address in foot.addresses)


def _holders(feet: Sequence[_Foot]) -> list[_Foot]:
    ready = [foot for foot in feet if foot.member.ready]
    return ready or [foot for foot in feet if not foot.service]


def _reverse(network: str, feet: Iterable[_Foot], virtual: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    found = {address: s for s, addresses in virtual.items() if fits(s) for address in addresses}
    for foot in feet:
        for address in foot.addresses:
            found[address] = foot.told
    room = MOST_NAME - len(network) - 1 if fits(network) else 0
    return {a: f"{name}.{network}" if len(name) <= room else name for a, name in found.items()}


def _addresses(members: Iterable[Member | Endpoint]) -> tuple[str, ...]:
    return tuple(a for member in members for a in _canonical((member.ipv4, member.ipv6)))


def _canonical(pair: Iterable[str]) -> tuple[str, ...]:
    return tuple(_canonical_text(address) for address in pair if address)


@lru_cache(1 << 16)
def _canonical_text(address: str) -> str:
    """As `inet_ntop` writes it. Remembered: a member's addresses are needed for each of its names."""
    return str(ipaddress.ip_address(address))
