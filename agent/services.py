"""From Views and members to the service addresses that this host's kernel balances. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from agent.ingress import Inner
from agent.members import merged
from model.directory import Directory, Member
from model.ids import HostId, InstanceId, NetworkId
from model.view import View
from net.host import INGRESS
from net.loadbalance import ServiceMember, VirtualService

Own = Mapping[NetworkId, Mapping[InstanceId, Member]]


def services_of(
    view: View, directory: Directory, host: HostId, own: Own, inner: Inner | None = None
) -> dict[str, VirtualService]:
    """By `model.view.service_key`; `own` are this host's members, `inner` how those publishing ports answer.
    A service's members are those that take new connections, ordered by instance, which is the same order on
    every host."""
    ready: dict[str, list[tuple[InstanceId, ServiceMember]]] = defaultdict(list)
    for network in {key.partition("/")[0] for key in view.services}:
        ident = NetworkId(network)
        for instance, member in merged(directory.networks.get(ident, {}), own.get(ident, {}), host).items():
            if member.service is not None and member.ready:
                inner4, inner6 = (inner or {}).get(instance, ("", "")) if network == INGRESS else ("", "")
                where = ServiceMember(ipv4=member.ipv4, ipv6=member.ipv6, inner4=inner4, inner6=inner6)
                ready[f"{network}/{member.service}"].append((instance, where))
    return {
        key: VirtualService(
            ipv4=service.ipv4,
            ipv6=service.ipv6,
            members=tuple(where for _, where in sorted(ready.get(key, ()), key=lambda pair: pair[0])),
            method=service.balance,
            ports=service.ports,
        )
        for key, service in view.services.items()
        if NetworkId(key.partition("/")[0]) in view.networks
    }
