"""A fake agent whose containers have real addresses: of the agent's own book, kept over its restarts."""

from __future__ import annotations

from typing import ClassVar

from agent.addresses import Addresses
from model.errors import Exhausted, InUse
from model.ids import InstanceId, NetworkId
from model.records import Instance
from model.status import Endpoint, HostReport, Phase
from net.ipam import QUARANTINE
from tests.support.agents import FakeAgent, FakeHost, MemoryChannel


class Awaited(Exception):
    """An address of the instance is not given up elsewhere yet."""


class AddressingAgent(FakeAgent):
    """`books` are what the hosts have journalled, by host id."""

    books: ClassVar[dict[str, Addresses]] = {}

    def __init__(self, host: FakeHost, channel: MemoryChannel) -> None:
        super().__init__(host, channel)
        self.book = self.books.setdefault(host.id, Addresses())
        self._told: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
        self._run = 0
        self.short: set[NetworkId] = set()

    async def run(self) -> None:
        self._run = self.host.epoch + 1
        await super().run()

    async def work(self) -> None:
        if self.host.epoch != self._run:
            return  # frames that come late to a process that is no more
        self._tidy()
        self._report_vacated()
        await self._send_vacated()
        self.short.clear()
        await super().work()
        self._tidy()
        await self._send_vacated()

    def _tidy(self) -> None:
        """Who has ended, or is known here no longer, gives back."""
        live = {i for i, s in self.host.statuses.items() if not s.phase.ended}
        for ident in {InstanceId(i) for i in self.book.held().values()}:
            wish = self.view.instances.get(ident)
            if ident not in live and (wish is None or ident in self.host.statuses):
                self.book.give_back(ident, -QUARANTINE)

    def _report_vacated(self) -> None:
        found = self.book.vacated(self.view.networks.values())
        self.host.report = HostReport(host=self.host.id, vacated=found, short=tuple(sorted(self.short)))

    async def _send_vacated(self) -> None:
        self._report_vacated()
        assert self.host.report is not None
        told = (self.host.report.vacated, self.host.report.short)
        if told != self._told:
            self._told = told
            await self.tell_host()

    def _settle(self, instance: Instance) -> None:
        known = self.host.statuses.get(instance.id)
        if known is not None and known.phase is Phase.PREPARING:
            self._start(instance)
        super()._settle(instance)

    def _start(self, instance: Instance) -> None:
        try:
            super()._start(instance)
        except Awaited:
            self._put(instance.id, attempt=instance.attempt, phase=Phase.PREPARING)
        except Exhausted:
            self._put(instance.id, attempt=instance.attempt, phase=Phase.PREPARING)
        except InUse as error:
            self._put(instance.id, attempt=instance.attempt, phase=Phase.FAILED, message=str(error))

    def _endpoints(self, instance: Instance) -> list[Endpoint]:
        found = []
        for attachment in instance.attachments:
            view = self.view.networks[attachment.network]
            if attachment.ipv4 in view.awaited:
                raise Awaited
            try:
                address = self.book.take(view, instance.id, 4, 0.0, wanted=attachment.ipv4)
            except Exhausted:
                self.short.add(view.id)
                raise
            found.append(Endpoint(network=view.id, network_name=view.spec.name, ifname="eth0", ipv4=address))
        return found
