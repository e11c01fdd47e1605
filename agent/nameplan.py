"""From what this host knows to what its resolver serves. Pure, but for what it remembers to be quick.

The directory tells of the other hosts' containers; of this host's own its records know better and sooner, and
also without a controller. A network's names are made anew only when its View, its members or its services'
addresses changed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from agent.record import Local
from model.directory import Directory, Member, Members
from model.ids import HostId, InstanceId, NetworkId
from model.records import Desired, Instance
from model.status import Phase
from model.view import NetworkView, View
from net import names
from net.names import Asker
from net.resolver.state import ResolverState, Zone

_Vips = dict[str, tuple[str, str]]
_Parts = tuple[NetworkView, Members, dict[InstanceId, Member], _Vips]


class NamePlan:
    def __init__(self) -> None:
        self._made: dict[NetworkId, tuple[_Parts, Zone]] = {}

    def state(
        self, view: View, directory: Directory, host: HostId, records: Mapping[InstanceId, Local]
    ) -> ResolverState:
        """Equal input gives equal states, whatever was asked before."""
        own, vips = own_members(view, host, records), _vips(view)
        made: dict[NetworkId, tuple[_Parts, Zone]] = {}
        for ident, network in view.networks.items():
            if not names.has_names(network):
                continue
            told = directory.networks.get(ident, {})
            parts = network, told, own.get(ident, {}), vips.get(ident, {})
            before = self._made.get(ident)
            if before is not None and _same(before[0], parts):
                made[ident] = before
            else:
                others = {i: member for i, member in told.items() if member.host != host}
                made[ident] = parts, names.zone(network, {**others, **parts[2]}, parts[3])
        self._made = made
        feet = [
            Asker(endpoints=record.endpoints, dns=wish.spec.dns if (wish := _wish(view, record)) else ())
            for record in records.values()
            if record.endpoints and (record.prepared or record.live)
        ]
        zones = {ident: zone for ident, (_, zone) in made.items()}
        return names.resolver_state(zones, names.clients(feet, view.networks))


def own_members(
    view: View, host: HostId, records: Mapping[InstanceId, Local]
) -> dict[NetworkId, dict[InstanceId, Member]]:
    """As the controller would make them of this host's reports."""
    found: dict[NetworkId, dict[InstanceId, Member]] = defaultdict(dict)
    for ident, record in records.items():
        wish = _wish(view, record)
        if wish is None or record.phase is not Phase.RUNNING:
            continue
        aliases = {attachment.network: attachment.aliases for attachment in wish.attachments}
        for endpoint in record.endpoints:
            if endpoint.network in aliases:
                found[endpoint.network][ident] = Member(
                    name=wish.name,
                    host=host,
                    service=wish.service,
                    service_name=wish.service_name,
                    slot=wish.slot,
                    aliases=aliases[endpoint.network],
                    ipv4=endpoint.ipv4,
                    ipv6=endpoint.ipv6,
                    ready=wish.desired is Desired.RUNNING and not record.paused,
                )
    return dict(found)


def _wish(view: View, record: Local) -> Instance | None:
    return view.instances.get(record.instance)


def _vips(view: View) -> dict[NetworkId, _Vips]:
    found: dict[NetworkId, _Vips] = defaultdict(dict)
    for key, service in view.services.items():
        network = NetworkId(key.partition("/")[0])
        if service.ipv4 or service.ipv6:
            found[network][service.name] = service.ipv4, service.ipv6
    return found


def _same(one: _Parts, other: _Parts) -> bool:
    """Views and directories share what did not change, so that most comparisons end at once."""
    members = one[1] is other[1] or one[1] == other[1]
    return members and one[0] == other[0] and one[2:] == other[2:]
