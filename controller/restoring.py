"""The part of the controller that is about its own state: backups of it, and what follows a restore."""

from __future__ import annotations

from collections.abc import AsyncIterator

from controller import queries, recovery
from controller.backup import archive
from controller.committer import Decide
from controller.core import Core
from controller.plan import Plan
from model.api import HostInfo, RecoveryInfo


class Restoring(Core):
    """`controller.controller.Controller` is one."""

    async def _command(self, decide: Decide) -> Plan:
        """Raises WrongState while the fleet is being restored, and as `_order`."""
        return await self._order(lambda cluster: decide(recovery.settled(cluster)))

    def recovery(self) -> RecoveryInfo:
        cluster = self.snapshot()
        return recovery.info_of(cluster, self.knocks.all(cluster.hosts))

    async def admit_host(self, ref: str) -> HostInfo:
        found, now = self.knocks.find(ref, self.snapshot().hosts), self.clock.now()
        await self._order(lambda c: recovery.plan_admit(c, *found, now))
        cluster = self.snapshot()
        host = cluster.hosts[found.knock.id]
        return queries.host_info(cluster, host, self.world(), connected=self.sessions.connected(host.id))

    async def settle(self) -> None:
        await self._order(lambda c: recovery.plan_settle(c, self.clock.now()))

    def backup(self) -> AsyncIterator[bytes]:
        epoch, address = self.committer.epoch, self.options.advertise
        return archive.stream(self.snapshot(), epoch, self.authority, address, self.clock.now())
