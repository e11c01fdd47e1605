"""Who is on this host's networks: what the controller told of the others, and this host's own records. Pure.

Of its own containers a host knows better and sooner, and also without a controller.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from agent.record import Local, status_of
from model.directory import Member, Members
from model.ids import HostId, InstanceId, NetworkId
from model.readiness import takes_connections
from model.records import Instance
from model.status import Phase
from model.view import View


def own_members(
    view: View, host: HostId, records: Mapping[InstanceId, Local]
) -> dict[NetworkId, dict[InstanceId, Member]]:
    """As the controller would make them of this host's reports."""
    found: dict[NetworkId, dict[InstanceId, Member]] = defaultdict(dict)
    for ident, record in records.items():
        wish = wish_of(view, record)
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
                    ready=takes_connections(wish, status_of(record)),
                )
    return dict(found)


def merged(told: Members, own: Members, host: HostId) -> Members:
    """`own` in place of what was told of `host`; those that don't run (yet) are left out."""
    return {**{i: m for i, m in told.items() if m.host != host and m.running}, **own}


def wish_of(view: View, record: Local) -> Instance | None:
    return view.instances.get(record.instance)
