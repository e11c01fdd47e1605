"""The agent's heart: Views in, one worker per instance, records out to journal and reporter.

Recovery is the same as work: `start` reads the journal, asks the runtime what runs, and hands every record to
a worker; what has no record is an orphan and goes. Invariants: nothing is removed for not being in a View
before a whole View has been received or read back from the journal; an instance that was removed here stays
removed: its record remains as a tombstone until no View names it any more, so that none is made twice.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from agent import happenings, orphans, plans, tunnelkeys
from agent.actions import Actions
from agent.adopting import adopted
from agent.assign import assign
from agent.context import Context
from agent.journal import Journal
from agent.leaders import Leaders
from agent.logkeeper import LogKeeper
from agent.logs import LogReader
from agent.membership import Membership
from agent.namekeeper import NameKeeper
from agent.openports import OpenPorts
from agent.ownjournal import OwnJournal
from agent.policykeeper import PolicyKeeper
from agent.probe import HealthState
from agent.prober import Prober
from agent.record import Local, status_of
from agent.reporter import Reporter
from agent.rotation import LogRotator
from agent.runtime.base import Created
from agent.servicekeeper import ServiceKeeper
from agent.telling import Telling
from agent.tombstones import Tombstones
from agent.viewjournal import ViewJournal
from agent.volumeusers import users_of
from agent.worker import Worker, fresh, rewire
from aio.backoff import jittered
from aio.eventring import EventRing
from aio.mailbox import Bell
from aio.supervisor import Supervisor
from model import view as views
from model.errors import FlotaError
from model.ids import InstanceId, NetworkId
from model.records import Instance
from model.status import Endpoint, HostFacts, HostReport, InstanceStatus, Phase, Stranger
from model.tunnels import TunnelReport
from model.view import NetworkView, View, ViewDelta
from net.host import Drift, NetworkPlan
from net.ipam import Leases
from net.plan import unreached

log = logging.getLogger("flota.agent")
AGAIN = 5.0
"""Seconds, jittered, until keys that could not be made or read are tried again."""


class HostAgent:
    def __init__(self, context: Context, journal: Journal, supervisor: Supervisor) -> None:
        self.context = context
        self.reporter = Reporter()
        self.happenings = EventRing(context.clock)
        self.reporter.heard = self.happenings.add
        self.telling = Telling(context, self.reporter)
        self._journal = journal
        self._views = ViewJournal(journal)
        self.membership = Membership(journal)
        self.leaders = Leaders(journal)
        self._supervisor = supervisor
        self._names = NameKeeper(context, self.membership)
        context.introduce = self._names.introduce
        self._ports = OpenPorts(context, journal)
        self._services = ServiceKeeper(context, self.membership, self._ports)
        self._policies = PolicyKeeper(context, self.membership)
        self._services.policies = self._policies
        self._actions = Actions(context, self._names.known)
        self.prober = Prober(context, supervisor, self._probed)
        self.workers: dict[InstanceId, Worker] = {}
        self._told: dict[InstanceId, Instance] = {}
        self.tombstones = Tombstones(journal)
        self.own = OwnJournal(context, journal, self._assign)
        self._plan: NetworkPlan | None = None
        """The one that stands; None while there is none, or the last could not be made."""
        self._carried: Mapping[str, NetworkView] = {}
        """Networks that stand, as far as they could be made."""
        self._trouble = ""
        self._leftovers: tuple[str, ...] = ()
        """What is nobody's and could not be removed."""
        self._tunnels: Mapping[NetworkId, TunnelReport] = {}
        self._applying = asyncio.Lock()
        self.reconnect = Bell()
        """Rung when the host's own facts changed: a session may be from an address that is gone."""
        self.replanned = Bell()
        """Rung when networks or peers are others."""
        self._left = Bell()
        """Rung when an instance left a network."""
        self._logs = LogKeeper(context)
        self._has_view = False
        self._arrived = asyncio.Event()

    # -- start --------------------------------------------------------------------------------------
    async def start(self) -> None:
        """Adopt what runs, clear what is nobody's, go on where the last agent stopped."""
        context = self.context
        view = self._views.read()
        context.view, self._has_view = view or View(), view is not None
        self.own.read()
        self.membership.read()
        self._ports.read()
        self.membership.changed = lambda _: self._members_changed()
        records = {InstanceId(key): record for key, record in self._journal.read("local", Local).items()}
        for ident in [i for i, record in records.items() if record.phase is Phase.REMOVED]:
            self.tombstones.found(records.pop(ident))
        context.records.update(records)
        self._open_addresses(records)
        await context.network.start()
        context.network.on_drift(self.drifted)
        context.network.on_change(self.report_host, lambda ident: rewire(self.workers, ident))
        if self._has_view:
            await self._apply_network()
        self._supervisor.start("networks", self._tidy_network, restart=True)
        self._leftovers = await orphans.clear(context, records)
        for ident, record in sorted(records.items()):
            record = await adopted(context, self._actions, record)
            self._employ(ident, record, context.wishes.get(ident))
        self._bury()
        self._assign()
        context.names.changed = context.processes.changed = context.room.changed = self.report_host
        context.room.told = lambda *words: self.reporter.event(happenings.of_image(context, *words))
        self._services.changed = self._policies.changed = self.report_host
        self._supervisor.start("services", self._services.run, restart=True)
        self._supervisor.start("policies", self._policies.run, restart=True)
        self._supervisor.start("names", self._names.run, restart=True)
        self._supervisor.start("room", context.room.run, restart=True)
        self._supervisor.start("verdicts", context.names.run, restart=True)
        self._supervisor.start("processes", context.processes.run, restart=True)
        self.report_host()

    def _open_addresses(self, records: Mapping[InstanceId, Local]) -> None:
        addresses, now = self.context.addresses, self.context.clock.now()
        holders = {ident: record.endpoints for ident, record in records.items()}
        addresses.load(self._journal.read("leases", Leases), holders, now)
        addresses.changed = self._leases_changed
        addresses.shortage = self.report_host
        addresses.met = self._met

    def _leases_changed(self, network: str, leases: Leases) -> None:
        self._journal.put("leases", network, leases)
        self._tell_vacated()

    def _tell_vacated(self) -> None:
        """Other hosts may wait for addresses that are set aside here."""
        if self.context.addresses.vacates(self.context.view.networks.values()):
            self.report_host()

    # -- Views --------------------------------------------------------------------------------------
    async def take_view(self, view: View) -> None:
        """A whole View: acted upon; journalled when this returns."""
        written = self._views.write(view)
        self.context.view, self._has_view = view, True
        self._tell_vacated()
        await self._apply_network()
        await self._policies.settle()
        self._bury()
        self._assign()
        await written

    async def take_delta(self, delta: ViewDelta) -> bool:
        """As `take_view`. False when it does not fit; the whole View is needed then."""
        view = views.apply(delta, self.context.view) if self._has_view else None
        if view is None:
            return False
        written = self._views.write(view)
        self.context.view = view
        self._tell_vacated()
        networks = delta.networks or delta.gone_networks or delta.peers or delta.gone_peers
        tunnels = delta.vxlan_port is not None or delta.source_ports is not None
        if networks or tunnels or self._plan is None:
            await self._apply_network()
        await self._policies.settle()
        self._assign()
        await written
        return True

    async def resettle(self, facts: HostFacts) -> None:
        """This host's underlay is another now: the fleet is told, its networks follow."""
        before, self.context.facts = self.context.facts, facts
        self.reporter.facts(facts)
        if replace(facts, checksums=True, warnings=()) != replace(before, checksums=True, warnings=()):
            self.reconnect.ring()
        if self._has_view:
            await self._apply_network()

    async def _apply_network(self) -> None:
        async with self._applying:
            await self._apply_plan()

    async def _apply_plan(self) -> None:
        context = self.context
        leaving = plans.leaving(self._carried, context.view, context.records.values())
        plan = plans.network_plan(context.view, context.host, context.facts, leaving=leaving)
        ends = context.tunnel_keys.ensure(plan.networks)
        plan = replace(plan, ends=ends)
        if plan == self._plan:
            return
        trouble, self._plan, self._carried = "", None, plan.networks
        try:
            async with self._policies.handing() as policies:
                with self._services.handing() as services:
                    await context.network.apply(replace(plan, services=services, policies=policies))
            self._plan = plan
            trouble = "; ".join(
                (*plans.without_driver(context.view), *plans.unfounded(plan), *unreached(plan))
            )
            context.addresses.renew()
            self.replanned.ring()
            for worker in self.workers.values():
                worker.look_again()
            context.tunnel_keys.tidy(ends)
        except (FlotaError, OSError) as error:
            log.error("network: %s", error)
            trouble = f"network: {error}"
        tunnels = tunnelkeys.reports(plan.networks, ends, stands=self._plan is not None)
        trouble = trouble or context.tunnel_keys.trouble
        if (trouble, tunnels) != (self._trouble, self._tunnels):
            self._trouble, self._tunnels = trouble, tunnels
            self.report_host()

    async def _tidy_network(self) -> None:
        """A network goes once the last has left it; one that could not be made is tried again. So is a key,
        after a while: nothing tells when what was in its way is gone."""
        keys = self.context.tunnel_keys
        while True:
            rung = await self._left.wait(jittered(AGAIN, random.random()))
            carried = None if self._plan is None else self._plan.networks.keys()
            other = carried is None or carried - self.context.view.networks.keys()
            if self._has_view and ((rung and other) or keys.trouble):
                await self._apply_network()

    def _bury(self) -> None:
        """Tell again of the removed that the View still names; forget those that it does not."""
        if self._has_view:
            for record in self.tombstones.tidy(self.context.view.instances):
                self.reporter.forgotten(record.instance, status_of(record))

    def _members_changed(self) -> None:
        """Who is on the networks may be another: names and services are made of that."""
        self._names.ring()
        self._services.ring()
        self._policies.ring()

    def _assign(self) -> None:
        self._members_changed()
        self.context.room.bell.ring()
        if self._has_view:
            self.tombstones.tidy(self.context.view.instances)
        wishes = self.context.wishes
        wanted = {ident: wish for ident, wish in wishes.items() if ident not in self.tombstones}
        change = assign(self.workers, self._told, wanted)
        for wish in change.changed:
            self._told[wish.id] = wish
            worker = self.workers.get(wish.id)
            if worker is None:
                self._employ(wish.id, fresh(wish, self.context.clock.now()), wish)
            else:
                self.prober.tend(worker.record, wish)
                worker.wish(wish)
                if wish.id in self.own:
                    self.telling.now(worker.record)
        for ident in change.gone if self._has_view else ():
            self._told.pop(ident, None)
            if (worker := self.workers.get(ident)) is not None:
                worker.wish(None)

    async def arrival(self, ident: InstanceId, deadline: float) -> Worker | None:
        """The instance's worker, waiting for its assignment: a client may be quicker than the View. None
        after `deadline` seconds."""
        try:
            async with asyncio.timeout(deadline):
                while ident not in self.workers:
                    await self._arrived.wait()
        except TimeoutError:
            return None
        return self.workers[ident]

    def _employ(self, ident: InstanceId, record: Local, want: Instance | None) -> None:
        if want is not None:
            self._told[ident] = want
        clock = self.context.clock
        judged = (lambda: False) if ident in self.own else self._judged
        worker = Worker(record, want, steps=self._actions, keeper=self, clock=clock, judged=judged)
        self.workers[ident] = worker
        self.context.records[ident] = record
        self._arrived.set()
        self._arrived = asyncio.Event()
        self.telling.now(record)
        self.prober.tend(record, want)
        self._supervisor.start(f"instance/{ident}", worker.run, restart=True)

    def watch_logs(self, reader: LogReader, rotator: LogRotator) -> None:
        """From now on logs are rotated, and followers are told when a container is over."""
        self._logs.start(reader, rotator)
        for record in self.context.records.values():
            self._logs.tend(record, self._told.get(record.instance))

    # -- Keeper -------------------------------------------------------------------------------------
    def keep(self, record: Local) -> asyncio.Future[None]:
        self.context.records[record.instance] = record
        self._members_changed()
        self._logs.tend(record, self._told.get(record.instance))
        self.prober.tend(record, self._told.get(record.instance))
        self.telling.now(record)
        # What it alone knows of lives in the kernel and ends with it: to survive this process is enough.
        return self._journal.put("local", record.instance, record, durable=False)

    def forget(self, record: Local) -> asyncio.Future[None]:
        self.workers.pop(record.instance, None)
        self.context.records.pop(record.instance, None)
        self._members_changed()
        self._told.pop(record.instance, None)
        self._logs.tend(record, None)
        self.prober.tend(record, None)
        self.prober.forget(record.instance)
        self.telling.gone(record)
        if record.instance in self.own:
            return self._journal.write([("local", record.instance, None), *self.own.without(record.instance)])
        if record.instance not in self.context.view.instances:
            return self._journal.delete("local", record.instance)
        return self.tombstones.keep(record)

    def employed(self, instances: Iterable[InstanceId]) -> list[Worker]:
        """The workers of those of these that are here."""
        return [worker for ident in instances if (worker := self.workers.get(ident)) is not None]

    def _judged(self) -> bool:
        return self.context.view.judged and self.membership.in_session

    def _probed(self, ident: InstanceId, run: Created, state: HealthState | None) -> None:
        if (worker := self.workers.get(ident)) is not None:
            worker.probed(run, state)

    def happened(self, record: Local, want: Instance | None, action: str) -> None:
        self.reporter.event(happenings.of_container(self.context, record, want, action))

    def moved(self, record: Local, want: Instance | None, endpoint: Endpoint, action: str) -> None:
        self._left.ring()
        self.reporter.event(happenings.of_endpoint(self.context, record, want, endpoint, action))

    # -- reports ------------------------------------------------------------------------------------
    def statuses(self) -> Sequence[InstanceStatus]:
        """Of what the fleet made."""
        return self.telling.statuses()

    def host_report(self) -> HostReport:
        context = self.context
        troubles = (*context.network.troubles, *context.names.troubles, *context.processes.troubles)
        troubles = (*troubles, *self._leftovers, *context.room.troubles)
        return HostReport(
            host=context.host,
            volumes=tuple(context.volumes.all()),
            unpublished=tuple(sorted({*self._ports.taken, *context.processes.unserved})),
            conditions=tuple(
                filter(None, (self._trouble, self._services.trouble, self._policies.trouble, *troubles))
            ),
            short=tuple(map(NetworkId, context.addresses.short)),
            strangers=context.addresses.strangers,
            vacated=context.addresses.vacated(context.view.networks.values()),
            tunnels=self._tunnels,
        )

    def report_host(self) -> None:
        self.reporter.host(self.host_report())

    def volume_users(self) -> Mapping[str, Mapping[str, str]]:
        return users_of(self.context.volumes.all(), self.context.records, self._told)

    def _met(self, stranger: Stranger) -> None:
        self.reporter.event(happenings.of_stranger(self.context, stranger))
        self.report_host()

    def drifted(self, drift: Drift) -> None:
        """Something of the host's network was put right. What was in the way of the networks may be gone:
        then `trouble` is to go too."""
        if self._trouble and not drift.failed:
            self._left.ring()
        self.reporter.event(happenings.of_drift(self.context, drift))
