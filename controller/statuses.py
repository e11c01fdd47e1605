"""What hosts last reported, and who waits for it. In memory: hosts say it again in each Hello.

Invariant: of an instance only reports of its own host count, and none of an earlier attempt replaces one of
a later.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Set

from msgspec.structs import replace

from controller.snapshot import Cluster
from model.ids import HostId, InstanceId, NetworkId
from model.status import HostReport, InstanceStatus, Phase

REMEMBERED = 1024
"""Last statuses of removed instances that are kept, for those who ask how they ended."""


class Statuses:
    def __init__(self) -> None:
        self._by_id: dict[InstanceId, InstanceStatus] = {}
        self._reports: dict[HostId, HostReport] = {}
        self._gone: OrderedDict[InstanceId, InstanceStatus] = OrderedDict()
        self._waiters: dict[InstanceId, set[asyncio.Future[None]]] = {}

    @property
    def by_id(self) -> Mapping[InstanceId, InstanceStatus]:
        return self._by_id

    @property
    def reports(self) -> Mapping[HostId, HostReport]:
        return self._reports

    def get(self, instance: InstanceId) -> InstanceStatus | None:
        """The last report, also of one that was removed a while ago."""
        return self._by_id.get(instance) or self._gone.get(instance)

    def take(self, cluster: Cluster, host: HostId, statuses: Iterable[InstanceStatus]) -> list[InstanceId]:
        """Take in what `host` says; the ids of the instances about which that says something new."""
        news: list[InstanceId] = []
        for status in statuses:
            record = cluster.instances.get(status.instance)
            known = self._by_id.get(status.instance)
            if record is None or record.host != host or known == status:
                continue
            if known is not None and status.attempt < known.attempt:
                continue
            self._by_id[status.instance] = _with_ending(status, known)
            news.append(status.instance)
            self.ring(status.instance)
        return news

    def missing(self, cluster: Cluster, host: HostId, there: Set[InstanceId]) -> None:
        """`host` told of all it has: what it used to have and has no longer is not known any more."""
        for ident in cluster.on_host(host):
            if ident not in there and self._by_id.pop(ident, None) is not None:
                self.ring(ident)

    def report(self, report: HostReport, host: HostId) -> frozenset[NetworkId]:
        """The networks of which the host is short since then, or not any more."""
        known = self._reports.get(host)
        self._reports[host] = report
        return frozenset({*report.short} ^ {*(known.short if known is not None else ())})

    def short(self, network: NetworkId) -> frozenset[HostId]:
        """Hosts that are short of that network's addresses."""
        return frozenset(host for host, report in self._reports.items() if network in report.short)

    def forget(self, instance: InstanceId) -> None:
        """Its record is gone; how it ended is remembered for a while."""
        last = self._by_id.pop(instance, None)
        if last is not None:
            self._gone[instance] = last
            if len(self._gone) > REMEMBERED:
                self._gone.popitem(last=False)
        self.ring(instance)

    def forget_host(self, host: HostId) -> None:
        self._reports.pop(host, None)

    def ring(self, instance: InstanceId) -> None:
        """Wake those who wait for this instance."""
        for future in self._waiters.pop(instance, ()):
            if not future.done():
                future.set_result(None)

    async def changed(self, instance: InstanceId) -> None:
        """Until there is something new about it. Call it in the same step in which you looked."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(instance, set())
        waiters.add(future)
        try:
            await future
        finally:
            waiters.discard(future)
            if not waiters and self._waiters.get(instance) is waiters:
                del self._waiters[instance]


def _with_ending(status: InstanceStatus, known: InstanceStatus | None) -> InstanceStatus:
    """`removed` follows `exited` so fast that a host may send the last only: how it ended is kept."""
    if status.phase is not Phase.REMOVED or known is None or status.exit_code is not None:
        return status
    return replace(status, exit_code=known.exit_code, oom_killed=known.oom_killed)
