"""What hosts last reported, and who waits for it. In memory: hosts say it again in each Hello.

Invariant: of an instance only reports of its own host count, none of an earlier attempt replaces one of a
later, and no address is kept that is not the instance's to use.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Container, Mapping, Sequence, Set

from msgspec.structs import replace

from controller.mirror import Mirror
from controller.owned import judged, shares_of
from controller.snapshot import Cluster
from model.factrules import MOST_ENTRIES, MOST_WORDS
from model.ids import HostId, InstanceId, NetworkId
from model.records import Instance
from model.status import HostReport, InstanceStatus, Phase

log = logging.getLogger("flota.controller")
REMEMBERED = 1024
"""Last statuses of removed instances that are kept, for those who ask how they ended."""


class Statuses:
    def __init__(self) -> None:
        self._by_id: dict[InstanceId, InstanceStatus] = {}
        self._reports: dict[HostId, HostReport] = {}
        self._gone: OrderedDict[InstanceId, InstanceStatus] = OrderedDict()
        self._waiters: dict[InstanceId, set[asyncio.Future[None]]] = {}
        self._strays: dict[InstanceId, str] = {}
        self.own = Mirror()
        """Of those that hosts made themselves."""

    @property
    def strays(self) -> Mapping[InstanceId, str]:
        """What was left out of last reports, in words."""
        return self._strays

    @property
    def by_id(self) -> Mapping[InstanceId, InstanceStatus]:
        return self._by_id

    @property
    def reports(self) -> Mapping[HostId, HostReport]:
        return self._reports

    def get(self, instance: InstanceId) -> InstanceStatus | None:
        """The last report, also of one that was removed a while ago."""
        return self._by_id.get(instance) or self._gone.get(instance)

    def take(self, cluster: Cluster, host: HostId, statuses: Sequence[InstanceStatus]) -> list[InstanceId]:
        """Take in what `host` says; the ids of the instances about which that says something new."""
        news: list[InstanceId] = []
        shares = shares_of(cluster, host) if statuses else {}
        for told in statuses:
            record = cluster.instances.get(told.instance)
            known = self._by_id.get(told.instance)
            if record is None or record.host != host:
                continue
            if known is not None and told.attempt < known.attempt:
                continue
            status, stray = judged(cluster, record, _cut(told), shares)
            self._note(host, record, stray)
            if known == status:
                continue
            self._by_id[status.instance] = _with_ending(status, known)
            news.append(status.instance)
            self.ring(status.instance)
        return news

    def _note(self, host: HostId, record: Instance, stray: str) -> None:
        if stray and self._strays.get(record.id) != stray:
            log.warning("host %s: %s", host[:12], stray)
        if stray:
            self._strays[record.id] = stray
        else:
            self._strays.pop(record.id, None)

    def missing(self, cluster: Cluster, host: HostId, there: Set[InstanceId]) -> None:
        """`host` told of all it has: what it used to have and has no longer is not known any more."""
        for ident in cluster.on_host(host):
            if ident not in there and self._by_id.pop(ident, None) is not None:
                self._strays.pop(ident, None)
                self.ring(ident)

    def report(self, report: HostReport, host: HostId) -> frozenset[NetworkId]:
        """The networks of which the host is short since then, or not any more."""
        known = self._reports.get(host)
        words = tuple(words[:MOST_WORDS] for words in report.conditions[:MOST_ENTRIES])
        self._reports[host] = replace(report, conditions=words)
        return frozenset({*report.short} ^ {*(known.short if known is not None else ())})

    def short(self, network: NetworkId) -> frozenset[HostId]:
        """Hosts that are short of that network's addresses."""
        return frozenset(host for host, report in self._reports.items() if network in report.short)

    def forget(self, instance: InstanceId) -> None:
        """Its record is gone; how it ended is remembered for a while."""
        last = self._by_id.pop(instance, None)
        self._strays.pop(instance, None)
        if last is not None:
            self._gone[instance] = last
            if len(self._gone) > REMEMBERED:
                self._gone.popitem(last=False)
        self.ring(instance)

    def left(self, there: Container[InstanceId]) -> None:
        """These are all that have a record. Whoever waits looks again: what became of an instance may have
        been missed."""
        for ident in [i for i in self._by_id if i not in there]:
            self.forget(ident)
        for ident in list(self._waiters):
            self.ring(ident)

    def forget_host(self, host: HostId) -> None:
        self._reports.pop(host, None)
        self.own.forget(host)

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


def _cut(status: InstanceStatus) -> InstanceStatus:
    """Its words no longer than people read: they become reasons in records, and an enemy's have no end."""
    message, health = status.message[:MOST_WORDS], status.health_message[:MOST_WORDS]
    same = (len(message), len(health)) == (len(status.message), len(status.health_message))
    return status if same else replace(status, message=message, health_message=health)
