"""Instances that are about to start in a fleet with policies: when do the hosts that judge know them? No IO.

Their addresses are known before their process is let go. Each host in session that judges on their networks
is waited for; then the instance's own host is told, which starts it. That host waits for a bounded time only,
so a word that is lost costs time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from controller.addressing import spans_hosts
from controller.policies import selecting_on
from controller.snapshot import Cluster
from controller.views import carriers
from model.ids import HostId, InstanceId, NetworkId, PolicyId
from model.records import Instance
from model.spec import Struct
from model.status import InstanceStatus, Phase

Addresses = Mapping[NetworkId, tuple[str, str]]
"""IPv4 and IPv6 on each network."""
Knows = Callable[[HostId, InstanceId, Addresses], bool]
"""Whether a host's kernel goes by these addresses of it; true of one that can't say."""
Tell = Callable[[HostId, InstanceId], None]
Selecting = Callable[[Cluster, HostId], Collection[PolicyId]]
"""The policies that select some instance of a host."""
_ABOUT_TO_START = frozenset({Phase.PREPARING, Phase.CREATED, Phase.STARTING})


class Arrival(Struct):
    home: HostId
    addresses: Addresses


class Arrivals:
    def __init__(self, knows: Knows, tell: Tell, selecting: Selecting = selecting_on) -> None:
        self._knows, self._tell, self._selecting = knows, tell, selecting
        self._arriving: dict[InstanceId, Arrival] = {}
        self._waiting: dict[InstanceId, set[HostId]] = {}
        """Those of them whose own host was not told yet, and for whom it waits."""
        self._judging: dict[HostId, tuple[tuple[object, ...], bool]] = {}
        """Of each host whether it judges, and by which records that was found."""

    def look(
        self,
        cluster: Cluster,
        statuses: Mapping[InstanceId, InstanceStatus],
        instances: Iterable[InstanceId],
    ) -> None:
        """These have changed."""
        for ident in instances:
            instance, status = cluster.instances.get(ident), statuses.get(ident)
            arrival = None if instance is None or status is None else _arrival(cluster, instance, status)
            if arrival is None:
                self._arriving.pop(ident, None)
                self._waiting.pop(ident, None)
            elif self._arriving.get(ident) != arrival:
                self._begin(cluster, ident, arrival)

    def _begin(self, cluster: Cluster, ident: InstanceId, arrival: Arrival) -> None:
        self._arriving[ident] = arrival
        others = {host for network in arrival.addresses for host in carriers(cluster, network)}
        awaited = {
            host
            for host in others
            if host != arrival.home
            and self._judges(cluster, host)
            and not self._knows(host, ident, arrival.addresses)
        }
        if awaited:
            self._waiting[ident] = awaited
        else:
            self._waiting.pop(ident, None)
            self._tell(arrival.home, ident)

    def _judges(self, cluster: Cluster, host: HostId) -> bool:
        """Whether policies select some instance there: looked up anew only when that may have changed."""
        basis = (cluster.policies, cluster.networks, cluster.on_host(host))
        known = self._judging.get(host)
        if known is None or any(a is not b for a, b in zip(known[0], basis, strict=True)):
            known = self._judging[host] = (basis, bool(self._selecting(cluster, host)))
        return known[1]

    def heard(self, host: HostId) -> None:
        """It follows more of what it was told, or has left."""
        for ident, hosts in list(self._waiting.items()):
            arrival = self._arriving[ident]
            if host in hosts and self._knows(host, ident, arrival.addresses):
                hosts.discard(host)
                if not hosts:
                    del self._waiting[ident]
                    self._tell(arrival.home, ident)

    def joined(self, host: HostId) -> None:
        """A session of it begins: it does not know any more what it was told."""
        for ident, arrival in self._arriving.items():
            if arrival.home == host and ident not in self._waiting:
                self._tell(host, ident)

    def known(self) -> Iterable[InstanceId]:
        return self._arriving


def _arrival(cluster: Cluster, instance: Instance, status: InstanceStatus) -> Arrival | None:
    """Where hosts apart from its own may judge it; None of one that is not about to start."""
    if instance.host is None or not cluster.policies or status.phase not in _ABOUT_TO_START:
        return None
    if not status.endpoints:
        return None
    return Arrival(
        home=instance.host,
        addresses={
            endpoint.network: (endpoint.ipv4, endpoint.ipv6)
            for endpoint in status.endpoints
            if (network := cluster.networks.get(endpoint.network)) is not None and spans_hosts(network)
        },
    )
