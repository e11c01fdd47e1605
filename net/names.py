"""From networks and their members to the names that this host's resolver serves. Pure.

What a name leads to, in the order of precedence; a name never mixes two of these, so that nobody takes over a
service by calling an alias like it:

1. a container's name and the first 12 digits of its id: that container, ready or not
2. a service: its VIP, or its ready tasks; with none ready the name is known and leads nowhere
3. `tasks.SERVICE`: its ready tasks; `SERVICE.SLOT`: that replica, ready or not
4. an alias: all its holders that are ready; with none, the plain containers among them

Each is also known as `NAME.NETWORK`. Names that no DNS message can hold (a label over 63 bytes) are left out.
The predefined network `bridge` has no names, as in Docker.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from model.directory import Member, Members
from model.ids import InstanceId, NetworkId, short
from model.spec import Struct
from model.status import Endpoint
from model.view import NetworkView
from net.host import PREDEFINED_BRIDGE
from net.resolver.state import Client, ResolverState, Zone, fits
from net.subnets import gateway

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
    return network.id != PREDEFINED_BRIDGE


def zone(network: NetworkView, members: Members, vips: Vips | None = None) -> Zone:
    """Of a network that `has_names`."""
    ordered = sorted(members.items())
    virtual = {service.lower(): pair for service, pair in (vips or {}).items()}
    services: dict[str, list[tuple[InstanceId, Member]]] = defaultdict(list)
    for service in virtual:
        services[service] = []
    for ident, member in ordered:
        if member.service_name:
            services[member.service_name.lower()].append((ident, member))
    named, reverse = _names(ordered, services, virtual), _reverse(network.spec.name, ordered, virtual)
    return Zone(
        network=network.spec.name.lower(),
        listen=tuple(str(gateway(subnet)) for subnet in network.spec.subnets),
        ranges=tuple(subnet.cidr for subnet in network.spec.subnets),
        names={name: named[name] for name in sorted(named) if fits(name)},
        tasks={
            service: tuple(_told(ident, member) for ident, member in tasks if member.ready)
            for service, tasks in sorted(services.items())
        },
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


def _names(
    ordered: Sequence[tuple[InstanceId, Member]],
    services: Mapping[str, Sequence[tuple[InstanceId, Member]]],
    vips: Vips,
) -> dict[str, tuple[str, ...]]:
    own: dict[str, list[Member]] = defaultdict(list)
    slots: dict[str, list[Member]] = defaultdict(list)
    aliases: dict[str, list[Member]] = defaultdict(list)
    for ident, member in ordered:
        own[member.name.lower()].append(member)
        own[short(ident)].append(member)
        if member.service_name and member.slot:
            slots[f"{member.service_name.lower()}.{member.slot}"].append(member)
        for alias in {alias.lower() for alias in member.aliases}:
            aliases[alias].append(member)
    ready = {s: _addresses(m for _, m in tasks if m.ready) for s, tasks in services.items()}
    return {
        **{alias: _addresses(_holders(members)) for alias, members in aliases.items()},
        **{slot: _addresses(members) for slot, members in slots.items()},
        **{f"tasks.{service}": addresses for service, addresses in ready.items()},
        **{s: _canonical(vips[s]) if s in vips else addresses for s, addresses in ready.items()},
        **{name: _addresses(members) for name, members in own.items()},
    }


def _holders(members: Sequence[Member]) -> list[Member]:
    ready = [member for member in members if member.ready]
    return ready or [member for member in members if not member.service_name]


def _reverse(network: str, ordered: Iterable[tuple[InstanceId, Member]], vips: Vips) -> dict[str, str]:
    found = {address: service for service, pair in vips.items() for address in _canonical(pair)}
    for ident, member in ordered:
        found.update(dict.fromkeys(_addresses((member,)), _told(ident, member)))
    suffix = network.lower()
    told = ((a, f"{name}.{suffix}" if fits(f"{name}.{suffix}") else name) for a, name in found.items())
    return {address: name for address, name in told if fits(name)}


def _told(ident: InstanceId, member: Member) -> str:
    """The name that answers give: its own where that can be said."""
    return member.name.lower() if fits(member.name) else short(ident)


def _addresses(members: Iterable[Member | Endpoint]) -> tuple[str, ...]:
    return tuple(a for member in members for a in _canonical((member.ipv4, member.ipv6)))


def _canonical(pair: Iterable[str]) -> tuple[str, ...]:
    return tuple(_canonical_text(address) for address in pair if address)


@lru_cache(1 << 16)
def _canonical_text(address: str) -> str:
    """As `inet_ntop` writes it. Remembered: a member's addresses are needed for each of its names."""
    return str(ipaddress.ip_address(address))
