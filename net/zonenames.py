"""The names of one network, kept while its members come and go. Pure, but for what it remembers to be quick.

A change costs what it changes: the names that its members have or had are looked at again, and no others.
Invariant: `change` leads from any members to the zone that it would make of the last ones at once.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Generic, NamedTuple, TypeVar

from model.directory import Member
from model.ids import InstanceId, short
from model.view import NetworkView
from net.resolver.change import ZoneChange, change_zone
from net.resolver.state import MOST_NAME, Zone, fits
from net.subnets import resolvers

Vips = Mapping[str, tuple[str, str]]
"""Service name → its IPv4 and IPv6 address, each may be empty."""
K = TypeVar("K", bound=str)
V = TypeVar("V")

_TASKS = "tasks."


class _Foot(NamedTuple):
    """A member with its names as they are asked for."""

    own: tuple[str, ...]
    """Its name where that can be said, and its id's first digits; answers give the first."""
    service: str
    slot: str
    aliases: frozenset[str]
    addresses: tuple[str, ...]
    ready: bool


class ZoneNames:
    def __init__(self, network: NetworkView) -> None:
        spec = network.spec
        name = spec.name.lower()
        self._room = MOST_NAME - len(name) - 1 if fits(name) else 0
        self._vips: Vips = {}
        self._virtual: dict[str, tuple[str, ...]] = {}
        self._feet: dict[InstanceId, _Foot] = {}
        self._own, self._slots, self._aliases, self._services, self._addresses = (
            _Holders[InstanceId]() for _ in range(5)
        )
        self._virtual_of = _Holders[str]()
        self.zone = Zone(
            network=name,
            listen=resolvers(network),
            ranges=tuple(subnet.cidr for subnet in spec.subnets),
        )

    def change(self, members: Mapping[InstanceId, Member | None], vips: Vips | None = None) -> ZoneChange:
        """Members that are new or other than before, None for those that left, and all services with an
        address of their own. Where nothing came of it, `zone` is the same object as before."""
        touched = _Touched()
        for ident, member in members.items():
            before, after = self._feet.get(ident), None if member is None else _foot(ident, member)
            if before == after:
                continue
            if before is not None:
                self._forget(ident, before)
                touched.add(before)
            if after is not None:
                self._learn(ident, after)
                touched.add(after)
        self._move(vips or {}, touched)
        return self._make(touched)

    def _learn(self, ident: InstanceId, foot: _Foot) -> None:
        self._feet[ident] = foot
        for holders, names in self._held(foot):
            for name in names:
                holders.add(name, ident)

    def _forget(self, ident: InstanceId, foot: _Foot) -> None:
        del self._feet[ident]
        for holders, names in self._held(foot):
            for name in names:
                holders.drop(name, ident)

    def _held(self, foot: _Foot) -> Iterable[tuple[_Holders[InstanceId], Iterable[str]]]:
        yield self._own, foot.own
        yield self._slots, (foot.slot,) if foot.slot else ()
        yield self._aliases, foot.aliases
        yield self._services, (foot.service,) if foot.service else ()
        yield self._addresses, foot.addresses

    def _move(self, vips: Vips, touched: _Touched) -> None:
        if vips == self._vips:
            return
        virtual = {service.lower(): canonical(pair) for service, pair in vips.items()}
        for service in virtual.keys() | self._virtual.keys():
            old, new = self._virtual.get(service), virtual.get(service)
            if old != new:
                touched.services.add(service)
                touched.addresses.update(old or (), new or ())
                for address in old or ():
                    self._virtual_of.drop(address, service)
                for address in new or ():
                    self._virtual_of.add(address, service)
        self._vips, self._virtual = vips, virtual

    def _make(self, touched: _Touched) -> ZoneChange:
        old = self.zone
        told: dict[str, tuple[str, ...] | None] = {}
        found: dict[str, tuple[str, ...] | None] = {}
        for service in touched.services:
            ready = self._ready(service)
            told[service] = None if ready is None else tuple(foot.own[0] for foot in ready)
            for name in (service, _TASKS + service):
                found[name] = self._leads(name)
        for name in touched.names - found.keys():
            found[name] = self._leads(name)
        change = ZoneChange(
            network=old.network,
            listen=old.listen,
            ranges=old.ranges,
            names=_others(old.names, found),
            tasks=_others(old.tasks, told),
            reverse=_others(old.reverse, {address: self._reverse(address) for address in touched.addresses}),
        )
        if change.names or change.tasks or change.reverse:
            self.zone = change_zone(change, old)
        return change

    # -- what a name leads to, in the order of precedence of `net.names` -------------------------------
    def _leads(self, name: str) -> tuple[str, ...] | None:
        """None where nobody has it."""
        if own := self._own.of(name):
            return _joined(self._feet[ident] for ident in own)
        if (service := self._service(name)) is not None:
            return self._virtual[name] if name in self._virtual else _joined(service)
        if name.startswith(_TASKS) and (tasks := self._service(name[len(_TASKS) :])) is not None:
            return _joined(tasks)
        if slots := self._slots.of(name):
            return _joined(self._feet[ident] for ident in slots)
        if aliases := self._aliases.of(name):
            feet = [self._feet[ident] for ident in aliases]
            ready = [foot for foot in feet if foot.ready]
            return _joined(ready or [foot for foot in feet if not foot.service])
        return None

    def _service(self, name: str) -> list[_Foot] | None:
        """The ready tasks of a service that can be asked for, None where there is no such service."""
        return self._ready(name) if fits(_TASKS + name) else None

    def _ready(self, service: str) -> list[_Foot] | None:
        tasks = self._services.of(service)
        if not tasks and service not in self._virtual:
            return None
        return [foot for ident in tasks if (foot := self._feet[ident]).ready]

    def _reverse(self, address: str) -> str | None:
        told = next((service for service in self._virtual_of.of(address) if fits(service)), None)
        if holders := self._addresses.of(address):
            told = self._feet[holders[-1]].own[0]
        if told is None:
            return None
        return f"{told}.{self.zone.network}" if len(told) <= self._room else told


class _Holders(Generic[K]):
    """Who has a name: mostly one, in order where there are more."""

    def __init__(self) -> None:
        self._of: dict[str, list[K]] = {}

    def of(self, name: str) -> Sequence[K]:
        return self._of.get(name, ())

    def add(self, name: str, ident: K) -> None:
        insort(self._of.setdefault(name, []), ident)

    def drop(self, name: str, ident: K) -> None:
        holders = self._of[name]
        del holders[bisect_left(holders, ident)]
        if not holders:
            del self._of[name]


class _Touched:
    """What may lead elsewhere than before."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.services: set[str] = set()
        self.addresses: set[str] = set()

    def add(self, foot: _Foot) -> None:
        self.names.update(foot.own, foot.aliases)
        self.addresses.update(foot.addresses)
        if foot.slot:
            self.names.add(foot.slot)
        if foot.service:
            self.services.add(foot.service)


def _foot(ident: InstanceId, member: Member) -> _Foot:
    name, brief, service = member.name.lower(), short(ident), member.service_name.lower()
    return _Foot(
        own=(name, brief) if fits(name) and name != brief else (brief,),
        service=service,
        slot=f"{service}.{member.slot}" if member.slot and service and fits(_TASKS + service) else "",
        aliases=frozenset(alias.lower() for alias in member.aliases if fits(alias.lower())),
        addresses=canonical((member.ipv4, member.ipv6)),
        ready=member.ready,
    )


def _joined(feet: Iterable[_Foot]) -> tuple[str, ...]:
    return tuple(address for foot in feet for address in foot.addresses)


def _others(old: Mapping[str, V], found: Mapping[str, V | None]) -> dict[str, V | None]:
    return {key: value for key, value in found.items() if old.get(key) != value}


def canonical(pair: Iterable[str]) -> tuple[str, ...]:
    """Addresses as `inet_ntop` writes them, without the empty ones."""
    return tuple(_canonical(address) for address in pair if address)


@lru_cache(1 << 16)
def _canonical(address: str) -> str:
    return str(ipaddress.ip_address(address))
