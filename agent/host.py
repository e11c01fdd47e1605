"""The agent's heart: Views in, one worker per instance, records out to journal and reporter.

Recovery is the same as work: `start` reads the journal, asks the runtime what runs, and hands every record to
a worker; what has no record is an orphan and goes. Invariant: nothing is removed for not being in a View
before a whole View has been received or read back from the journal.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Mapping, Sequence

from agent import lifecycle, plans
from agent.actions import Actions
from agent.assign import assign
from agent.context import Context
from agent.journal import Journal
from agent.logs import LogReader
from agent.record import Local, status_of
from agent.reporter import Reporter
from agent.rotation import LogRotator
from agent.runtime.base import State
from agent.worker import Worker, fresh
from aio.supervisor import Supervisor, in_thread
from model import view as views
from model.codec import encode_wire
from model.errors import FlotaError
from model.events import Event
from model.ids import HostId, InstanceId, NetworkId
from model.records import Instance
from model.spec import Struct
from model.status import HostReport, InstanceStatus
from model.view import NetworkView, Peer, View, ViewDelta
from net.host import Drift, NetworkPlan

log = logging.getLogger("flota.agent")


class _Head(Struct):
    """The View's scalars; its maps are rows of their own."""

    revision: int
    fleet_id: str
    vxlan_port: int
    security_profile: str
    address_pools: tuple[str, ...]


class HostAgent:
    def __init__(self, context: Context, journal: Journal, supervisor: Supervisor) -> None:
        self.context = context
        self.reporter = Reporter()
        self._journal = journal
        self._supervisor = supervisor
        self._actions = Actions(context)
        self.workers: dict[InstanceId, Worker] = {}
        self._told: dict[InstanceId, Instance] = {}
        self._plan: NetworkPlan | None = None
        self._logs: LogReader | None = None
        self._rotator: LogRotator | None = None
        self._rotated: set[InstanceId] = set()
        self._has_view = False

    # -- start --------------------------------------------------------------------------------------
    async def start(self) -> None:
        """Adopt what runs, clear what is nobody's, go on where the last agent stopped."""
        context = self.context
        context.view, self._has_view = self._read_view()
        await context.network.start()
        context.network.on_drift(self._drifted)
        await self._apply_network()
        records = self._journal.read("local", Local)
        await self._clear_orphans(records)
        for key, record in sorted(records.items()):
            adopted = await self._recovered(record)
            self._hold_addresses(adopted)
            self._employ(InstanceId(key), adopted, context.view.instances.get(InstanceId(key)))
        if self._has_view:
            self._assign()
        self.report_host()

    async def _recovered(self, record: Local) -> Local:
        context = self.context
        runs: bool | None = None
        if record.created is not None and not record.started:
            state = await context.runtime.state(record.instance)
            runs = None if state is None else state is State.RUNNING
        return lifecycle.recovered(record, boot_id=context.boot_id, runs=runs, now=context.clock.now())

    def _hold_addresses(self, record: Local) -> None:
        for endpoint in record.endpoints:
            for address in filter(None, (endpoint.ipv4, endpoint.ipv6)):
                self.context.addresses(endpoint.network).hold(address)

    async def _clear_orphans(self, records: Mapping[str, Local]) -> None:
        """Containers, namespaces, roots and folders of ours that no record knows."""
        context = self.context
        for container in await context.runtime.list():
            if container not in records:
                log.warning("removing container %s: nobody knows it", container[:12])
                await context.runtime.delete(container, force=True)
        for instance in context.network.namespaces():
            if instance not in records:
                await context.network.drop_namespace(instance)
        for root in context.images.roots():
            if root.container not in records:
                await context.images.remove_root(root.container)
        for folder in (context.run / "c", context.state / "containers"):
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)
            for entry in list(folder.iterdir()):
                if entry.name not in records:
                    await in_thread(shutil.rmtree, entry, True)

    # -- Views --------------------------------------------------------------------------------------
    async def take_view(self, view: View) -> None:
        """A whole View: journalled, then acted upon."""
        old = self.context.view if self._has_view else View()
        delta = views.diff(old, view)
        await self._journal_delta(view, delta, whole=not self._has_view)
        self.context.view, self._has_view = view, True
        await self._apply_network()
        self._assign()

    async def take_delta(self, delta: ViewDelta) -> bool:
        """False when it does not fit; the whole View is needed then."""
        view = views.apply(delta, self.context.view) if self._has_view else None
        if view is None:
            return False
        await self._journal_delta(view, delta, whole=False)
        self.context.view = view
        if delta.networks or delta.gone_networks or delta.peers or delta.gone_peers or delta.vxlan_port:
            await self._apply_network()
        self._assign()
        return True

    async def _apply_network(self) -> None:
        plan = plans.network_plan(self.context.view, self.context.host, self.context.facts)
        if plan == self._plan:
            return
        try:
            await self.context.network.apply(plan)
            self._plan = plan
        except FlotaError as error:
            log.error("network: %s", error)

    def _assign(self) -> None:
        wanted = self.context.view.instances
        change = assign(self.workers, self._told, wanted)
        for wish in change.changed:
            self._told[wish.id] = wish
            worker = self.workers.get(wish.id)
            if worker is None:
                self._employ(wish.id, fresh(wish, self.context.clock.now()), wish)
            else:
                worker.wish(wish)
        for ident in change.gone:
            self._told.pop(ident, None)
            if (worker := self.workers.get(ident)) is not None:
                worker.wish(None)

    def _employ(self, ident: InstanceId, record: Local, want: Instance | None) -> None:
        if want is not None:
            self._told[ident] = want
        worker = Worker(record, want, steps=self._actions, keeper=self, clock=self.context.clock)
        self.workers[ident] = worker
        self.context.records[ident] = record
        self.reporter.status(status_of(record))
        self._supervisor.start(f"instance/{ident}", worker.run, restart=True)

    def watch_logs(self, logs: LogReader, rotator: LogRotator) -> None:
        """From now on logs are rotated, and followers are told when a container is over."""
        self._logs, self._rotator = logs, rotator
        for record in self.context.records.values():
            self._tend_log(record)

    def _tend_log(self, record: Local) -> None:
        if self._logs is None or self._rotator is None:
            return
        path = str(self.context.log_path(record.instance))
        want = self._told.get(record.instance)
        if record.live and want is not None:
            if record.instance not in self._rotated:
                self._rotated.add(record.instance)
                self._rotator.add(path, str(self.context.bundle(record.instance)), want.spec.log)
        else:
            if record.instance in self._rotated:
                self._rotated.discard(record.instance)
                self._rotator.remove(path)
            self._logs.wake(path)

    # -- Keeper -------------------------------------------------------------------------------------
    def keep(self, record: Local) -> asyncio.Future[None]:
        self.context.records[record.instance] = record
        self._tend_log(record)
        self.reporter.status(status_of(record))
        return self._journal.put("local", record.instance, record)

    def forget(self, record: Local) -> asyncio.Future[None]:
        self.workers.pop(record.instance, None)
        self.context.records.pop(record.instance, None)
        self._told.pop(record.instance, None)
        self._tend_log(record)
        self.reporter.forgotten(record.instance, status_of(record))
        return self._journal.delete("local", record.instance)

    def happened(self, record: Local, want: Instance | None, action: str) -> None:
        name = want.name if want is not None else ""
        attributes = {"image": want.spec.image} if want is not None else {}
        if action == "die":
            attributes["exitCode"] = "" if record.exit_code is None else str(record.exit_code)
        self.reporter.event(
            Event(
                type="container",
                action=action,
                id=record.instance,
                name=name,
                host=self.context.facts.hostname,
                at=self.context.clock.now(),
                attributes=attributes,
            )
        )

    # -- reports ------------------------------------------------------------------------------------
    def statuses(self) -> Sequence[InstanceStatus]:
        return [status_of(record) for record in self.context.records.values()]

    def host_report(self) -> HostReport:
        return HostReport(host=self.context.host, volumes=tuple(self.context.volumes.all()))

    def report_host(self) -> None:
        self.reporter.host(self.host_report())

    def volume_users(self) -> Mapping[str, Sequence[str]]:
        """Volume → names of instances that hold it."""
        users: dict[str, list[str]] = {}
        for record in self.context.records.values():
            want = self._told.get(record.instance)
            for volume, _ in record.volumes:
                users.setdefault(volume, []).append(want.name if want else record.instance)
        return users

    def _drifted(self, drift: Drift) -> None:
        log.warning("network drift: %s: %s", drift.object, drift.action)
        attributes = {"object": drift.object, "action": drift.action}
        self.reporter.event(
            Event(
                type="network",
                action="repair",
                id=self.context.host,
                name=drift.object,
                host=self.context.facts.hostname,
                at=self.context.clock.now(),
                attributes=attributes,
            )
        )

    # -- the journalled View ------------------------------------------------------------------------
    def _read_view(self) -> tuple[View, bool]:
        head = self._journal.read("view", _Head).get("head")
        if head is None:
            return View(), False
        instances = {InstanceId(k): v for k, v in self._journal.read("instance", Instance).items()}
        networks = {NetworkId(k): v for k, v in self._journal.read("network", NetworkView).items()}
        peers = {HostId(k): v for k, v in self._journal.read("peer", Peer).items()}
        return (
            View(
                revision=head.revision,
                fleet_id=head.fleet_id,
                vxlan_port=head.vxlan_port,
                security_profile=head.security_profile,
                address_pools=head.address_pools,
                instances=instances,
                networks=networks,
                peers=peers,
            ),
            True,
        )

    async def _journal_delta(self, view: View, delta: ViewDelta, *, whole: bool) -> None:
        del whole
        head = _Head(
            revision=view.revision,
            fleet_id=view.fleet_id,
            vxlan_port=view.vxlan_port,
            security_profile=view.security_profile,
            address_pools=view.address_pools,
        )
        writes: list[tuple[str, str, bytes | None]] = [("view", "head", encode_wire(head))]
        for kind, put, gone in (
            ("instance", delta.instances, delta.gone_instances),
            ("network", delta.networks, delta.gone_networks),
            ("peer", delta.peers, delta.gone_peers),
        ):
            writes += [(kind, key, encode_wire(value)) for key, value in put.items()]
            writes += [(kind, key, None) for key in gone]
        await self._journal.write(writes)
