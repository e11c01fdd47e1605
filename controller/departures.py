"""Instances of services that are about to go: when do all other hosts send them no new connections?

Each carrier of their networks that is in session is waited for; then the instance's own host is told, which
lets it drain from that moment. That host waits for a bounded time only, so a word that is lost costs time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from controller.snapshot import Cluster
from controller.views import carriers
from model.ids import HostId, InstanceId
from model.records import Desired, Instance

Avoids = Callable[[HostId, InstanceId], bool]
"""Whether a host surely sends it nothing new; also of a host of which that can't be known."""
Tell = Callable[[HostId, InstanceId], None]


class Departures:
    def __init__(self, avoids: Avoids, tell: Tell) -> None:
        self._avoids, self._tell = avoids, tell
        self._waiting: dict[InstanceId, set[HostId]] = {}
        self._home: dict[InstanceId, HostId] = {}
        """Where those are that are about to go, told or not."""

    def look(self, cluster: Cluster, instances: Iterable[InstanceId]) -> None:
        """These have changed."""
        for ident in instances:
            instance = cluster.instances.get(ident)
            if instance is None:
                self._home.pop(ident, None)
                self._waiting.pop(ident, None)
            elif ident not in self._home and _departs(instance) and instance.host is not None:
                networks = {a.network for a in instance.attachments}
                others = {host for network in networks for host in carriers(cluster, network)}
                self._home[ident] = instance.host
                self._waiting[ident] = others - {instance.host}
                self._settle(ident)

    def heard(self, host: HostId) -> None:
        """It follows more of what it was told, or has left."""
        for ident in [ident for ident, hosts in self._waiting.items() if host in hosts]:
            self._settle(ident)

    def joined(self, host: HostId) -> None:
        """A session of it begins: it does not know any more what it was told."""
        for ident, home in self._home.items():
            if home == host and ident not in self._waiting:
                self._tell(host, ident)

    def _settle(self, ident: InstanceId) -> None:
        left = {host for host in self._waiting[ident] if not self._avoids(host, ident)}
        self._waiting[ident] = left
        if not left:
            del self._waiting[ident]
            self._tell(self._home[ident], ident)


def _departs(instance: Instance) -> bool:
    return instance.desired is Desired.REMOVED and instance.service is not None and not instance.force
