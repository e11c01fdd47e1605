"""From what this host knows to what its resolver serves. Pure, but for what it remembers to be quick.

The directory tells of the other hosts' containers; of this host's own its records know better and sooner, and
also without a controller. A member that comes or goes costs what its own names cost: who it was is told from
who it is by looking whether both are one object, which Views and directories see to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from agent.members import own_members, wish_of
from agent.record import Local
from model.directory import Directory, Member, Members
from model.ids import HostId, InstanceId, NetworkId
from model.records import Instance
from model.spec import NetworkSpec
from model.status import Endpoint
from model.view import ServiceView, View
from net import names
from net.names import Asker
from net.resolver.change import StateChange, Step, ZoneChange, changes
from net.resolver.state import Client, ResolverState
from net.zonenames import ZoneNames

_Vips = Mapping[str, tuple[str, str]]
_NOBODY: Members = {}


class _Made(NamedTuple):
    """Names, and of what they were made."""

    names: ZoneNames
    spec: NetworkSpec
    told: Members = _NOBODY
    own: Members = _NOBODY


class NamePlan:
    """`step` tells how the last state came of the one before it, where that is known without comparing."""

    def __init__(self) -> None:
        self.step: Step | None = None
        self._state = ResolverState()
        self._made: dict[NetworkId, _Made] = {}
        self._services: Mapping[str, ServiceView] = {}
        self._vips: dict[NetworkId, _Vips] = {}

    def state(
        self,
        view: View,
        directory: Directory,
        host: HostId,
        records: Mapping[InstanceId, Local],
        visitors: Iterable[Sequence[Endpoint]] = (),
    ) -> ResolverState:
        """Equal input gives equal states, whatever was asked before. `visitors` have endpoints and no names:
        they only ask."""
        own = own_members(view, host, records)
        if view.services is not self._services:
            self._services, self._vips = view.services, _vips(view.services)
        made: dict[NetworkId, _Made] = {}
        zones: dict[str, ZoneChange | None] = {}
        for ident, network in view.networks.items():
            if not names.has_names(network):
                continue
            before = self._made.get(ident)
            if before is None or before.spec != network.spec:
                before = _Made(ZoneNames(network), network.spec)
            told, mine = directory.networks.get(ident, _NOBODY), own.get(ident, _NOBODY)
            made[ident] = now = _Made(before.names, network.spec, told, mine)
            zone = now.names.zone
            change = now.names.change(_changes(before, now, host), self._vips.get(ident))
            if now.names.zone is not zone:
                zones[ident] = change
        return self._stepped(made, zones, _clients(view, records, visitors))

    def _stepped(
        self, made: dict[NetworkId, _Made], zones: Mapping[str, ZoneChange | None], clients: dict[str, Client]
    ) -> ResolverState:
        before, last = self._state, self._made
        same = made.keys() == last.keys() and all(made[i].names is last[i].names for i in made)
        change = StateChange(zones=zones, clients=changes(before.clients, clients)) if same else None
        if change is None or not change.empty:
            found = {ident: entry.names.zone for ident, entry in made.items()}
            self._state = names.resolver_state(found, clients)
        self._made, self.step = made, None if change is None else Step(before, change)
        return self._state


def _clients(
    view: View, records: Mapping[InstanceId, Local], visitors: Iterable[Sequence[Endpoint]]
) -> dict[str, Client]:
    feet = [
        _asker(record, wish_of(view, record))
        for record in records.values()
        if record.endpoints and (record.prepared or record.live)
    ]
    guests = (Asker(endpoints=tuple(endpoints)) for endpoints in visitors)
    return names.clients([*feet, *guests], view.networks)


def _asker(record: Local, wish: Instance | None) -> Asker:
    if wish is None:
        return Asker(endpoints=record.endpoints)
    links = {attachment.network: attachment.links for attachment in wish.attachments if attachment.links}
    return Asker(endpoints=record.endpoints, dns=wish.spec.dns, links=links)


def _changes(before: _Made, now: _Made, host: HostId) -> dict[InstanceId, Member | None]:
    """Members that are new or other, None for those that left; this host's own in place of what was told."""
    found: dict[InstanceId, Member | None] = {}
    for ident in changes(before.told, now.told) | changes(before.own, now.own):
        member = now.told.get(ident)
        foreign = member if member is not None and member.host != host else None
        found[ident] = now.own.get(ident, foreign)
    return found


def _vips(services: Mapping[str, ServiceView]) -> dict[NetworkId, _Vips]:
    found: dict[NetworkId, dict[str, tuple[str, str]]] = defaultdict(dict)
    for key, service in services.items():
        network = NetworkId(key.partition("/")[0])
        if service.ipv4 or service.ipv6:
            found[network][service.name] = service.ipv4, service.ipv6
    return dict(found)
