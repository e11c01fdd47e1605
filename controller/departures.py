"""Instances of services that are about to go: when do all other hosts send them no new connections?

Each carrier of their networks that is in session is waited for; then the instance's own host is told, which
lets it drain from that moment. That host waits for a bounded time only, so a word that is lost costs time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set

from controller.snapshot import Cluster
from controller.views import carriers
from model.ids import HostId, InstanceId, NetworkId
from model.records import Desired, Instance
from model.spec import Struct

Networks = frozenset[NetworkId]
Avoids = Callable[[HostId, InstanceId, Networks], bool]
"""Whether a host surely sends it nothing new on these networks; true of one that can't say."""
Tell = Callable[[HostId, InstanceId], None]


class Departure(Struct):
    home: HostId
    networks: Networks


class Departures:
    def __init__(self, avoids: Avoids, tell: Tell) -> None:
        self._avoids, self._tell = avoids, tell
        self._departing: dict[InstanceId, Departure] = {}
        self._waiting: dict[InstanceId, set[HostId]] = {}
        """Those of them whose own host was not told yet, and for whom it waits."""

    def known(self) -> Iterable[InstanceId]:
        return self._departing

    def look(self, cluster: Cluster, instances: Iterable[InstanceId]) -> None:
        """These have changed."""
        found: dict[Networks, set[HostId]] = {}
        for ident in instances:
            instance = cluster.instances.get(ident)
            if instance is None:
                self._departing.pop(ident, None)
                self._waiting.pop(ident, None)
            elif ident not in self._departing and _departs(instance) and instance.host is not None:
                networks = frozenset(a.network for a in instance.attachments)
                if networks not in found:
                    found[networks] = {host for network in networks for host in carriers(cluster, network)}
                self._begin(ident, Departure(home=instance.host, networks=networks), found[networks])

    def _begin(self, ident: InstanceId, departure: Departure, carried: Set[HostId]) -> None:
        self._departing[ident] = departure
        others = {
            h for h in carried if h != departure.home and not self._avoids(h, ident, departure.networks)
        }
        if others:
            self._waiting[ident] = others
        else:
            self._tell(departure.home, ident)

    def heard(self, host: HostId) -> None:
        """It follows more of what it was told, or has left."""
        for ident, hosts in list(self._waiting.items()):
            departure = self._departing[ident]
            if host in hosts and self._avoids(host, ident, departure.networks):
                hosts.discard(host)
                if not hosts:
                    del self._waiting[ident]
                    self._tell(departure.home, ident)

    def joined(self, host: HostId) -> None:
        """A session of it begins: it does not know any more what it was told."""
        for ident, departure in self._departing.items():
            if departure.home == host and ident not in self._waiting:
                self._tell(host, ident)


def _departs(instance: Instance) -> bool:
    return instance.desired is Desired.REMOVED and instance.service is not None and not instance.force
