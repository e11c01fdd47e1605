"""From what this host knows to what its resolver serves. Pure, but for what it remembers to be quick.

The directory tells of the other hosts' containers; of this host's own its records know better and sooner, and
also without a controller. A network's names are made anew only when its View, its members or its services'
addresses changed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from agent.members import merged, own_members, wish_of
from agent.record import Local
from model.directory import Directory, Member, Members
from model.ids import HostId, InstanceId, NetworkId
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
                made[ident] = parts, names.zone(network, merged(told, parts[2], host), parts[3])
        self._made = made
        feet = [
            Asker(endpoints=record.endpoints, dns=wish.spec.dns if (wish := wish_of(view, record)) else ())
            for record in records.values()
            if record.endpoints and (record.prepared or record.live)
        ]
        zones = {ident: zone for ident, (_, zone) in made.items()}
        return names.resolver_state(zones, names.clients(feet, view.networks))


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
