"""The controller's moving parts, wired: store, loop, heartbeats, sessions, and what they tell each other.

Invariant: everything that is written goes through the committer; everything that is sent to hosts is a
function of the durable snapshot.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from itertools import chain
from types import TracebackType
from typing import Self

from msgspec.structs import replace

from aio.alarm import Alarm
from aio.clock import Clock
from aio.eventring import EventRing, shortened
from aio.supervisor import Supervisor
from controller import ingress, recovery
from controller.arrivals import Arrivals
from controller.commands import networks as network_commands
from controller.commands.find import find_host
from controller.commands.hosts import away_problems, follows
from controller.committer import Committer, Decide
from controller.departures import Departures
from controller.directory import Memberships, instances_of
from controller.heartbeats import Heartbeats
from controller.keys import all_keys, publishing_keys, short_keys, waiting_keys
from controller.knocks import Knocks
from controller.logins import for_pull, of_owner, plan_login
from controller.loop import ReconcileLoop
from controller.options import Options
from controller.pipes import Pipes
from controller.pki import Authority
from controller.placing import World
from controller.plan import Plan, put
from controller.prepulling import Prepulling, pulled
from controller.recall import plan_recall
from controller.reconcile.ingress import plan_ingress
from controller.reconcile.keys import own_ends, plan_ends, plan_keys
from controller.reconcile.network import plan_network
from controller.reconcile.prepull import Prepull
from controller.reconcile.removal import plan_facts, plan_forgotten, plan_hello, plan_instance
from controller.reconcile.service import plan_service
from controller.sessions import Sessions
from controller.snapshot import Change, Cluster, Key
from controller.statuses import Statuses
from controller.store.base import Store
from controller.swarms import Swarms
from controller.trial import Trial
from controller.views import affected, carriers
from model.api import HostAway
from model.directory import Directory
from model.errors import NotFound
from model.ids import HostId, IdSource, InstanceId, NetworkId, ServiceId
from model.records import FleetSettings, Host, Instance
from model.registries import Login
from model.reportrules import hello_problems, recall_problems, report_problems
from model.status import HostReport, HostState
from model.validate import check
from model.view import View
from model.wire import Hello, Recall, Report

log = logging.getLogger("flota.controller")
MOST_WORDS = 4
"""Lines in the log for what was left out of one report."""
MakeAuthority = Callable[[str], Authority]
"""Fleet id → the fleet's CA."""


class Core:
    """An asynchronous context: inside it the fleet is run. One per store."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        ids: IdSource,
        make_authority: MakeAuthority,
        options: Options,
        trial: Trial | None = None,
    ) -> None:
        self.store = store
        self.clock = clock
        self.ids = ids
        self.options = options
        self.statuses = Statuses()
        self.swarms = Swarms()
        self.builds: dict[HostId, int] = {}
        self._children = Supervisor("controller")
        self.memberships = Memberships()
        self.ring = EventRing(clock)
        self.pipes = Pipes()
        self.knocks = Knocks()
        self._recalls: dict[HostId, Recall] = {}
        """All that hosts told since this controller started, as long as the fleet is being restored."""
        self.committer = Committer(store, self.ring)
        policy = options.liveness
        self.sessions = Sessions(
            self,
            clock,
            ping_every=options.ping_every,
            alive_for=policy.unknown_after,
            registry=options.registry,
        )
        self.departures = Departures(self.sessions.avoids, self.sessions.departing)
        self.arrivals = Arrivals(self.sessions.knows, self.sessions.arrived)
        self._alarm: Alarm[str] = Alarm(clock, lambda _: self.heartbeats.wake())
        self.heartbeats = Heartbeats(
            self.committer,
            clock,
            policy,
            due=lambda at: self._alarm.set("judge", at),
            lost=self._lost,
            settled=self._settled,
        )
        self.loop = ReconcileLoop(store, self.committer, clock, plan=self._plan, changed=self._changed)
        self.prepulls = Prepulling(
            self._children,
            self._prepull,
            lambda service: self.loop.add({Key("service", service)}),
        )
        self._hosts: dict[HostId, Host] = {}
        """As they were last looked at: what follows from a change is found though it was missed."""
        self._make_authority = make_authority
        self._authority: Authority | None = None
        self._trial = trial or Trial()

    async def __aenter__(self) -> Self:
        await self.committer.lead()
        await self.committer.run(self._found)
        await self.committer.run(lambda cluster: network_commands.predefined(cluster, self.clock.now()))
        self._authority = self._make_authority(self.snapshot().settings.fleet_id)
        self._children.start("loop", self.loop.run, restart=True)
        self._children.start("trial", lambda: self._trial.run(self.clock), restart=True)
        self._children.start("alarm", self._alarm.run, restart=True)
        self._children.start("heartbeats", self.heartbeats.run, restart=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for host in self.sessions.hosts():
            self.sessions.dismiss(host, "the controller stops", retry=True)
        await self._children.close()

    @property
    def authority(self) -> Authority:
        assert self._authority is not None, "the controller has not started"
        return self._authority

    async def _order(self, decide: Decide) -> Plan:
        """Commit what a person, or a host that joins, asks for. Raises Unavailable while this release is on
        trial: nothing is acknowledged that a way back would lose."""
        self._trial.check()
        return await self.committer.run(decide)

    def world(self) -> World:
        """What hosts say, now."""
        return World(
            statuses=self.statuses.by_id,
            reports=self.statuses.reports,
            settling=self.heartbeats.settling(),
            strays=self.statuses.strays,
            prepulls=self.prepulls.known,
            own=self.statuses.own.by_host,
        )

    def login_for_pull(self, host: HostId, instance: InstanceId) -> Login:
        return for_pull(self.snapshot(), host, instance, self.authority.unseal)

    async def _prepull(self, pull: Prepull) -> str:
        cluster = self.snapshot()
        if not pull.platform and pull.host in self.swarms.holders(pull.image.partition("@")[2]):
            return ""
        login = of_owner(cluster, pull.service, pull.image, self.authority.unseal)
        return await pulled(self.pipes, pull, cluster.host_name(pull.host), login)

    # -- what the loop asks ---------------------------------------------------------------------------
    def _found(self, cluster: Cluster) -> Plan:
        """The fleet's own record, made once."""
        if cluster.settings.fleet_id:
            return Plan()
        fresh = FleetSettings(name=self.options.name, fleet_id=self.ids()[:32])
        if self.options.address_pools:
            fresh = replace(fresh, address_pools=self.options.address_pools)
        return Plan(items=(put(fresh, "the fleet is founded"),))

    def _plan(self, cluster: Cluster, key: Key) -> Plan:
        now = self.clock.now()
        if recovery.held(cluster):
            return Plan()
        if key.kind == "service":
            self.prepulls.look(cluster, ServiceId(key.id))
            return plan_service(cluster, ServiceId(key.id), self.world(), now, self.ids)
        if key.kind == "network":
            network = NetworkId(key.id)
            short, reports = self.statuses.short(network), self.statuses.reports
            found = plan_network(cluster, network, now, short, reports)
            found = plan_keys(cluster, network, reports, now, found)
            return plan_ingress(cluster, now, found) if network == ingress.NETWORK else found
        if key.kind == "login":
            return plan_login(cluster, key.id)
        ident = InstanceId(key.id)
        return plan_instance(cluster, ident, self.statuses.get(ident), now)

    def _changed(self, cluster: Cluster, changes: Iterable[Change] | None) -> None:
        """Durable changes: wake the sessions and the waiters whom they concern. None: any may have been
        missed."""
        if changes is None:
            known = (self.memberships.known(), self.departures.known(), self.arrivals.known())
            self._members_of(cluster, {*cluster.instances, *chain.from_iterable(known)})
            self.sessions.ring(None)
            self.statuses.left(cluster.instances)
            for host in {*self._hosts, *cluster.hosts}:
                self._look_at(cluster, host)
            return
        changes = tuple(changes)
        self._members_of(cluster, instances_of(cluster, changes))
        for change in changes:
            self.sessions.ring(affected(cluster, change))
            if recovery.over(change.old, change.new):
                self.loop.add(all_keys(cluster))
            if isinstance(change.old, Instance):
                if change.new is None:
                    self.statuses.forget(change.old.id)
                self.statuses.ring(change.old.id)
            for record in (change.old, change.new):
                if isinstance(record, Host):
                    self._look_at(cluster, record.id)

    def _members_of(self, cluster: Cluster, instances: Collection[InstanceId]) -> None:
        """These may have joined, changed or left networks: the hosts that carry those are told."""
        for network in self.memberships.refresh(cluster, self.statuses.by_id, instances):
            self.sessions.ring(carriers(cluster, network))
        self.departures.look(cluster, instances)
        self.arrivals.look(cluster, self.statuses.by_id, instances)

    def _look_at(self, cluster: Cluster, host: HostId) -> None:
        """It may have been removed, or have joined again."""
        old, new = self._hosts.pop(host, None), cluster.hosts.get(host)
        if new is not None:
            self._hosts[host] = new
        if old is not None and new is None:
            self._removed(old)
        elif old is not None and new is not None and follows(old, new):
            self.pipes.drop_idle(host)  # offered by the certificate before
        elif old is not None and new is not None and new.certificate != old.certificate:
            self.sessions.dismiss(host, "this host joined again", retry=True)
            self.pipes.drop(host, f"host {old.spec.name} joined again")

    def _removed(self, host: Host) -> None:
        self.sessions.dismiss(host.id, "this host was removed from the fleet", retry=False)
        self.pipes.drop(host.id, f"host {host.spec.name} was removed from the fleet")
        self.heartbeats.forget(host.id)
        self.statuses.forget_host(host.id)
        self.swarms.forget(host.id)

    def _lost(self, host: HostId) -> None:
        self.sessions.dismiss(host, "this host was silent for too long", retry=True)
        self.pipes.drop(host, f"host {self.snapshot().host_name(host)} was lost")
        for ident in self.snapshot().on_host(host):
            self.statuses.ring(ident)

    def _settled(self) -> None:
        self.loop.add(waiting_keys(self.snapshot()))

    # -- what sessions tell (sessions.Listener) ---------------------------------------------------------
    def snapshot(self) -> Cluster:
        return self.store.snapshot()

    def directory(self, host: HostId, view: View) -> Directory:
        return self.memberships.of_host(self.snapshot(), host, view.networks)

    async def greeted(self, host: HostId, hello: Hello) -> None:
        check("this host says of itself what cannot be", hello_problems(hello))
        cluster = self.snapshot()
        record = cluster.hosts.get(host)
        if record is None and cluster.settings.restored_at:
            raise self.knocks.heard(host, hello.facts, self.clock.now())
        if record is None:
            raise NotFound("this host is not in the fleet (any more)", hint="Join it again with `flota join`")
        self.heartbeats.hello(host, was_lost=record.state is HostState.LOST)
        self.statuses.report(hello.report, host)
        self.statuses.own.greet(host, hello.own)
        news = self.statuses.take(cluster, host, hello.statuses)
        self.statuses.missing(cluster, host, {status.instance for status in hello.statuses})
        self._members_of(cluster, cluster.on_host(host))
        self.departures.joined(host)
        self.arrivals.joined(host)
        try:
            await self.committer.run(lambda now: plan_hello(now, host, hello, self.clock.now()))
            self._look_at_networks(hello.report)
            await self._tunnels_of(host, hello.report)
        finally:  # said again, they are no news
            self.loop.reported(news)

    async def expect_away(self, ref: str, request: HostAway) -> None:
        """Not durable: a controller that starts meanwhile gives every host a fresh term."""
        check("this is no time to be away", away_problems(request))
        self.heartbeats.excuse(find_host(self.snapshot(), ref).id, request.seconds)

    async def reported(self, host: HostId, report: Report) -> None:
        check("this host reports what cannot be", report_problems(report))
        cluster = self.snapshot()
        if report.blobs is not None:
            self.swarms.told(host, report.blobs)
        self.statuses.own.take(host, report.own, report.own_gone)
        news = self.statuses.take(cluster, host, report.statuses)
        self._members_of(cluster, news)
        try:
            await self._written(cluster, host, report)
        finally:  # said again, they are no news
            self.loop.reported(news)
            if any(status.phase.ended for status in report.statuses):
                self.loop.add(waiting_keys(self.snapshot()))  # they gave back addresses

    async def _written(self, cluster: Cluster, host: HostId, report: Report) -> None:
        """What of a report becomes durable, and what else than instances it is about."""
        if (facts := report.facts) is not None:
            await self.committer.run(lambda fresh: plan_facts(fresh, host, facts))
        if report.report is not None:
            changed = self.statuses.report(report.report, host)
            self.loop.add(waiting_keys(cluster) | publishing_keys(cluster))
            self.loop.add(short_keys(cluster, host, changed))
            self._look_at_networks(report.report)
            await self._tunnels_of(host, report.report)
        name = cluster.host_name(host)
        for event in report.events:
            self.ring.add(shortened(replace(event, host=name)))
        by_id = {status.instance: status for status in report.statuses}
        now = self.clock.now()
        if not plan_forgotten(cluster, host, report.forgotten, by_id, now).empty:
            await self.committer.run(lambda fresh: plan_forgotten(fresh, host, report.forgotten, by_id, now))

    def _look_at_networks(self, report: HostReport) -> None:
        """Those of which it says something new; words that name none cost nothing more."""
        networks = self.snapshot().networks
        told = {*report.short, *(NetworkId(word.partition("/")[0]) for word in report.vacated)}
        self.loop.add(Key("network", network) for network in told if network in networks)

    async def _tunnels_of(self, host: HostId, report: HostReport) -> None:
        """Its ends of encrypted networks are durable before peers are told, and before keys go on
        changing."""
        cluster = self.snapshot()
        if (record := cluster.hosts.get(host)) is not None:
            for words in own_ends(cluster, record, report.tunnels)[1][:MOST_WORDS]:
                log.warning("host %s: %s", host[:12], words)
        if not plan_ends(cluster, host, report.tunnels).empty:
            await self.committer.run(lambda fresh: plan_ends(fresh, host, report.tunnels))
        networks = self.snapshot().networks
        self.loop.add(Key("network", network) for network in report.tunnels if network in networks)

    def leads(self) -> int:
        return self.committer.epoch

    def held(self) -> bool:
        return recovery.held(self.snapshot())

    def asks(self, host: HostId) -> bool:
        return recovery.asks(self.snapshot(), host)

    async def recalled(self, host: HostId, recall: Recall) -> None:
        check("this host recalls what cannot be", recall_problems(recall))
        if not self.asks(host):
            return  # the waiting is over, or nobody had asked it
        left_out: tuple[str, ...] = ()
        self._recalls[host] = recall

        def decide(cluster: Cluster) -> Plan:
            nonlocal left_out
            plan, left_out = plan_recall(cluster, host, self._recalls, self.clock.now())
            return plan

        await self.committer.run(decide)
        cluster = self.snapshot()
        if cluster.settings.recovery is None:
            self._recalls.clear()
        for words in left_out:
            log.warning("host %s: %s", cluster.host_name(host), words)
        news = self.statuses.take(cluster, host, recall.statuses)
        self._members_of(cluster, news)
        self.loop.reported(news)

    def ponged(self, host: HostId) -> None:
        record = self.snapshot().hosts.get(host)
        if record is not None:
            self.heartbeats.pong(host, recorded=record.state)

    def followed(self, host: HostId) -> None:
        self.departures.heard(host)
        self.arrivals.heard(host)

    def parted(self, host: HostId) -> None:
        self.heartbeats.gone(host)
        self.departures.heard(host)
        self.arrivals.heard(host)
