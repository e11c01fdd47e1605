"""The difference of two states of the resolver. Pure. Invariant: `apply(diff(a, b), a) == b`.

Values that two states share are told by identity at once; `apply` shares what did not change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from model.spec import Struct
from net.resolver.state import Client, ResolverState, Zone

K = TypeVar("K")
V = TypeVar("V")


class ZoneChange(Struct):
    """The small parts as they are, of the others what is new or other; None for what is gone."""

    network: str
    listen: tuple[str, ...] = ()
    ranges: tuple[str, ...] = ()
    names: Mapping[str, tuple[str, ...] | None] = {}
    tasks: Mapping[str, tuple[str, ...] | None] = {}
    reverse: Mapping[str, str | None] = {}


class StateChange(Struct):
    """None for what is gone."""

    zones: Mapping[str, ZoneChange | None] = {}
    clients: Mapping[str, Client | None] = {}

    @property
    def empty(self) -> bool:
        return not self.zones and not self.clients


class Step(NamedTuple):
    """How a state came of the one before it: who knows that need not compare them."""

    before: ResolverState
    change: StateChange


def diff(old: ResolverState, new: ResolverState) -> StateChange:
    """What turns `old` into `new`."""
    return StateChange(
        zones={
            ident: None if zone is None else _zone_diff(old.zones.get(ident, Zone(network="")), zone)
            for ident, zone in changes(old.zones, new.zones).items()
        },
        clients=changes(old.clients, new.clients),
    )


def apply(change: StateChange, state: ResolverState) -> ResolverState:
    zones = dict(state.zones)
    for ident, zone in change.zones.items():
        if zone is None:
            zones.pop(ident, None)
        else:
            zones[ident] = change_zone(zone, zones.get(ident, Zone(network="")))
    return ResolverState(zones=zones, clients=_apply(change.clients, state.clients))


def _zone_diff(old: Zone, new: Zone) -> ZoneChange:
    return ZoneChange(
        network=new.network,
        listen=new.listen,
        ranges=new.ranges,
        names=changes(old.names, new.names),
        tasks=changes(old.tasks, new.tasks),
        reverse=changes(old.reverse, new.reverse),
    )


def change_zone(change: ZoneChange, zone: Zone) -> Zone:
    """What did not change is shared."""
    return Zone(
        network=change.network,
        listen=change.listen,
        ranges=change.ranges,
        names=_apply(change.names, zone.names),
        tasks=_apply(change.tasks, zone.tasks),
        reverse=_apply(change.reverse, zone.reverse),
    )


def changes(old: Mapping[K, V], new: Mapping[K, V]) -> dict[K, V | None]:
    """What turns one mapping into the other."""
    if old is new:
        return {}
    changed: dict[K, V | None] = {
        key: value for key, value in new.items() if (before := old.get(key)) is not value and before != value
    }
    if len(new) - sum(key not in old for key in changed) < len(old):
        changed.update((key, None) for key in old if key not in new)
    return changed


def _apply(change: Mapping[str, V | None], old: Mapping[str, V]) -> Mapping[str, V]:
    if not change:
        return old
    new = {**old, **{key: value for key, value in change.items() if value is not None}}
    for key, value in change.items():
        if value is None:
            new.pop(key, None)
    return new
