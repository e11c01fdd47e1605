"""The controller: `api.ports.ControllerPort` over its moving parts.

Invariant: queries read one snapshot and never wait; a command returns once its change is durable.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TypeVar

from msgspec.structs import replace

from aio.release import running
from api.channels import Channel, Pipe
from controller import logins, queries
from controller.attachments import network_named
from controller.building import Building
from controller.commands import connections, hosts, instances, networks, services, settings
from controller.commands.find import find_host, find_instance, find_service
from controller.committer import Decide
from controller.joining import Joining
from controller.owning import Owning
from controller.pki import SKEW
from controller.plan import Plan
from controller.policing import Policing
from controller.registrytokens import Tokens
from controller.sharing import Sharing
from controller.snapshot import Cluster
from model.api import (
    ConnectNetwork,
    CreateInstance,
    DisconnectNetwork,
    FleetInfo,
    HostInfo,
    InstanceInfo,
    NetworkInfo,
    NetworksPruned,
    ServiceInfo,
    StopRequest,
    UpdateBandwidth,
    UpdateHost,
    UpdatePorts,
    UpdateService,
    UpdateSettings,
    WaitResult,
    Why,
)
from model.diagnosis import diagnose
from model.doctor import CheckUp, HostCheck
from model.errors import NotFound, WrongState
from model.events import Event
from model.ids import HostId, InstanceId, NetworkId, ServiceId
from model.limits import UpdateLimits
from model.own import OwnAct
from model.records import FleetSettings, Instance, Network
from model.registries import NOBODY, Login
from model.spec import NetworkSpec, ServiceSpec
from model.status import InstanceStatus
from model.waiting import Condition, answer

T = TypeVar("T")


def _or_none(find: Callable[[Cluster, str], T], cluster: Cluster, ref: str) -> T | None:
    try:
        return find(cluster, ref)
    except NotFound:
        return None


class Controller(Tokens, Joining, Policing, Sharing, Building, Owning):
    """Made by `controller.main`; in tests with a memory store and a virtual clock."""

    # -- plain containers -------------------------------------------------------------------------------
    def list_instances(self) -> Sequence[InstanceInfo]:
        """Newest first."""
        cluster, world = self.snapshot(), self.world()
        fleets = (queries.instance_info(cluster, i, world) for i in cluster.instances.values())
        every = (*fleets, *self.own_infos())
        return sorted(every, key=lambda info: (-info.instance.created_at, info.instance.id))

    def get_instance(self, ref: str) -> InstanceInfo:
        if (own := self.own_of(ref)) is not None:
            return self.own_info(own)
        cluster = self.snapshot()
        return queries.instance_info(cluster, find_instance(cluster, ref), self.world())

    async def create_instance(self, request: CreateInstance, login: Login = NOBODY) -> InstanceInfo:
        self.check_unowned(request.name)
        ident, now = InstanceId(self.ids()), self.clock.now()

        def decide(cluster: Cluster) -> Plan:
            plan = instances.create(cluster, request, self.world(), now=now, ident=ident)
            return logins.with_login(cluster, plan, request.spec.image, login, self.authority.seal)

        return await self._on_instance(decide)

    async def start_instance(self, ref: str, *, hold: bool = False) -> InstanceInfo:
        if (own := self.own_of(ref)) is not None:
            return await self.own_act(own, OwnAct(verb="start", hold=hold))
        return await self._on_instance(
            lambda c: instances.start(c, ref, self._status(c, ref), self.world(), self.clock.now(), hold=hold)
        )

    async def stop_instance(self, ref: str, request: StopRequest) -> InstanceInfo:
        if (own := self.own_of(ref)) is not None:
            return await self.own_act(own, OwnAct(verb="stop", stop=request))
        return await self._on_instance(lambda c: instances.stop(c, ref, request, self.clock.now()))

    async def restart_instance(self, ref: str, request: StopRequest) -> InstanceInfo:
        if (own := self.own_of(ref)) is not None:
            return await self.own_act(own, OwnAct(verb="restart", stop=request))
        return await self._on_instance(
            lambda c: instances.restart(c, ref, request, self.world(), self.clock.now())
        )

    async def pause_instance(self, ref: str, *, paused: bool) -> InstanceInfo:
        if (own := self.own_of(ref)) is not None:
            return await self.own_act(own, OwnAct(verb="pause" if paused else "unpause"))
        return await self._on_instance(
            lambda c: instances.pause(c, ref, self._status(c, ref), paused=paused, now=self.clock.now())
        )

    async def remove_instance(self, ref: str, *, force: bool, volumes: bool) -> InstanceInfo:
        if (own := self.own_of(ref)) is not None:
            return await self.own_act(own, OwnAct(verb="remove", force=force, volumes=volumes))
        return await self._on_instance(
            lambda c: instances.remove(
                c, ref, self._status(c, ref), force=force, volumes=volumes, now=self.clock.now()
            )
        )

    async def rename_instance(self, ref: str, name: str) -> InstanceInfo:
        if (own := self.own_of(ref)) is not None:
            return await self.own_act(own, OwnAct(verb="rename", name=name))
        self.check_unowned(name)
        return await self._on_instance(lambda c: instances.rename(c, ref, name, self.clock.now()))

    async def update_limits(self, ref: str, request: UpdateLimits) -> InstanceInfo:
        if (own := self.own_of(ref)) is not None:
            return await self.own_act(own, OwnAct(verb="update", limits=request))
        return await self._on_instance(lambda c: instances.update_limits(c, ref, request, self.clock.now()))

    async def update_ports(self, ref: str, request: UpdatePorts) -> InstanceInfo:
        self.check_fleets(ref)
        return await self._on_instance(
            lambda c: connections.update_ports(c, ref, request, self.world(), self.clock.now())
        )

    async def update_bandwidth(self, ref: str, request: UpdateBandwidth) -> InstanceInfo:
        self.check_fleets(ref)
        return await self._on_instance(lambda c: connections.update_bandwidth(c, ref, request))

    async def wait_instance(self, ref: str, condition: Condition) -> WaitResult:
        if (own := self.own_of(ref)) is not None:
            return await self.wait_own(own.instance.id, condition)
        if self.own.waits.last(InstanceId(ref)) is not None:
            return await self.wait_own(InstanceId(ref), condition)
        ident = self._awaited(ref)
        began = self.statuses.get(ident)
        while True:
            cluster = self.snapshot()
            instance = cluster.instances.get(ident)
            status = self._status_of(cluster, instance) if instance else self.statuses.get(ident)
            result = answer(condition, instance, status, began)
            if result is not None:
                return result
            await self.statuses.changed(ident)

    def _awaited(self, ref: str) -> InstanceId:
        """One that removed itself sooner than anybody could wait for it is known by its whole id."""
        ident = InstanceId(ref)
        gone = ident not in self.snapshot().instances and self.statuses.get(ident) is not None
        return ident if gone else find_instance(self.snapshot(), ref).id

    async def _on_instance(self, decide: Decide) -> InstanceInfo:
        """Commit, then show the instance as it is; one that is gone already as it last was."""
        plan, before = await self._run(decide)
        cluster = self.snapshot()
        instance = cluster.instances.get(InstanceId(plan.subject), before)
        if instance is None:
            raise NotFound(f"no such container: {plan.subject[:12]}")
        return queries.instance_info(cluster, instance, self.world())

    async def _run(self, decide: Decide) -> tuple[Plan, Instance | None]:
        seen: Instance | None = None

        def look(cluster: Cluster) -> Plan:
            nonlocal seen
            plan = decide(cluster)
            seen = cluster.instances.get(InstanceId(plan.subject))
            return plan

        return await self._command(look), seen

    def _status(self, cluster: Cluster, ref: str) -> InstanceStatus:
        return self._status_of(cluster, find_instance(cluster, ref))

    def _status_of(self, cluster: Cluster, instance: Instance) -> InstanceStatus:
        return queries.instance_status(cluster, instance, self.world())

    # -- services ---------------------------------------------------------------------------------------
    def list_services(self) -> Sequence[ServiceInfo]:
        cluster, world = self.snapshot(), self.world()
        ordered = sorted(cluster.services.values(), key=lambda s: s.spec.name)
        return [queries.service_info(cluster, service, world) for service in ordered]

    def get_service(self, ref: str) -> ServiceInfo:
        cluster = self.snapshot()
        return queries.service_info(cluster, find_service(cluster, ref), self.world())

    async def create_service(self, spec: ServiceSpec, login: Login = NOBODY) -> ServiceInfo:
        ident, now = ServiceId(self.ids()), self.clock.now()

        def decide(cluster: Cluster) -> Plan:
            plan = services.create(cluster, spec, now=now, ident=ident)
            return logins.with_login(cluster, plan, spec.container.image, login, self.authority.seal)

        await self._command(decide)
        return self.get_service(ident)

    async def update_service(self, ref: str, request: UpdateService, login: Login = NOBODY) -> ServiceInfo:
        image = request.spec.container.image

        def decide(cluster: Cluster) -> Plan:
            plan = services.update(cluster, ref, request, self.clock.now())
            return logins.with_login(cluster, plan, image, login, self.authority.seal)

        return self.get_service((await self._command(decide)).subject)

    async def rollback_service(self, ref: str, revision: int = 0) -> ServiceInfo:
        plan = await self._command(lambda c: services.rollback(c, ref, self.clock.now(), revision))
        return self.get_service(plan.subject)

    async def scale_service(self, ref: str, replicas: int) -> ServiceInfo:
        plan = await self._command(lambda c: services.scale(c, ref, replicas, self.clock.now()))
        return self.get_service(plan.subject)

    async def remove_service(self, ref: str) -> None:
        await self._command(lambda c: services.remove(c, ref, self.clock.now()))

    # -- hosts ------------------------------------------------------------------------------------------
    def list_hosts(self) -> Sequence[HostInfo]:
        ordered = sorted(self.snapshot().hosts.values(), key=lambda h: h.spec.name)
        return [self.get_host(host.id) for host in ordered]

    def get_host(self, ref: str) -> HostInfo:
        cluster = self.snapshot()
        host = find_host(cluster, ref)
        connected, refused = self.sessions.connected(host.id), self.sessions.refused(host.id)
        return queries.host_info(cluster, host, self.world(), connected=connected, refused=refused)

    async def update_host(self, ref: str, request: UpdateHost) -> HostInfo:
        plan = await self._order(lambda c: hosts.update(c, ref, request, self.clock.now()))
        return self.get_host(plan.subject)

    async def remove_host(self, ref: str, *, force: bool) -> None:
        await self._order(lambda c: hosts.remove(c, ref, force=force, now=self.clock.now()))

    # -- networks ---------------------------------------------------------------------------------------
    def list_networks(self) -> Sequence[NetworkInfo]:
        cluster, world = self.snapshot(), self.world()
        ordered = sorted(cluster.networks.values(), key=lambda n: n.spec.name)
        return [queries.network_info(cluster, network, world) for network in ordered]

    def get_network(self, ref: str) -> NetworkInfo:
        cluster, world = self.snapshot(), self.world()
        network = network_named(cluster, ref)
        info = queries.network_info(cluster, network, world)
        return replace(info, usage=queries.block_usage(cluster, network, world))

    async def create_network(self, spec: NetworkSpec) -> NetworkInfo:
        ident, now = NetworkId(self.ids()), self.clock.now()
        await self._command(lambda c: networks.create(c, spec, now=now, ident=ident))
        return self.get_network(ident)

    async def rotate_keys(self, ref: str) -> NetworkInfo:
        plan = await self._command(lambda c: networks.rotate_keys(c, ref, self.clock.now()))
        return self.get_network(plan.subject)

    async def remove_network(self, ref: str) -> None:
        await self._command(lambda c: networks.remove(c, ref, self.clock.now()))

    async def connect_network(self, ref: str, request: ConnectNetwork) -> InstanceInfo:
        self.check_fleets(request.container)
        return await self._on_instance(
            lambda c: connections.connect(c, ref, request, self.world(), self.clock.now())
        )

    async def disconnect_network(self, ref: str, request: DisconnectNetwork) -> InstanceInfo:
        self.check_fleets(request.container)
        return await self._on_instance(lambda c: connections.disconnect(c, ref, request, self.clock.now()))

    def diagnose(self, checks: Sequence[HostCheck], failed: Mapping[str, str]) -> CheckUp:
        cluster = self.snapshot()
        names = {ident: host.spec.name for ident, host in cluster.hosts.items()}
        return diagnose(checks, failed, names, cluster.settings.vxlan_port)

    async def prune_networks(self, chosen: Callable[[Network], bool]) -> NetworksPruned:
        names: tuple[str, ...] = ()

        def decide(cluster: Cluster) -> Plan:
            nonlocal names
            plan, names = networks.prune(cluster, chosen, self.clock.now())
            return plan

        await self._command(decide)
        return NetworksPruned(removed=names)

    # -- the fleet --------------------------------------------------------------------------------------
    def info(self) -> FleetInfo:
        return queries.fleet_info(
            self.snapshot(),
            self.world(),
            release=running(),
            store=self.store.url,
            registry=self.options.registry,
        )

    def get_settings(self) -> FleetSettings:
        return self.snapshot().settings

    async def update_settings(self, request: UpdateSettings) -> FleetSettings:
        await self._order(lambda c: settings.update(c, request, self.clock.now()))
        return self.get_settings()

    def why(self, ref: str) -> Why:
        """The first of container, service, node, network that `ref` names."""
        cluster, world = self.snapshot(), self.world()
        if (instance := _or_none(find_instance, cluster, ref)) is not None:
            return queries.why_instance(cluster, instance, world, self.ring.about(instance.id))
        if (service := _or_none(find_service, cluster, ref)) is not None:
            return queries.why_service(cluster, service, world, self.ring.about(service.id))
        if (host := _or_none(find_host, cluster, ref)) is not None:
            connected, held = self.sessions.connected(host.id), self.heartbeats.held
            events, refused = self.ring.about(host.id), self.sessions.refused(host.id)
            return queries.why_host(
                cluster, host, world, events, held=held, connected=connected, refused=refused
            )
        if (network := _or_none(network_named, cluster, ref)) is not None:
            return queries.why_network(cluster, network, self.ring.about(network.id))
        if (own := self.own_of(ref)) is not None:
            return self.why_own(own)
        raise NotFound(f"no container, service, node or network is called {ref[:80]!r}")

    def events(self, since: float | None, until: float | None) -> AsyncIterator[Event]:
        return self.ring.stream(since, until)

    def locate_instance(self, ref: str) -> tuple[str, HostId]:
        own = self.own_of(ref)
        instance = own.instance if own is not None else find_instance(self.snapshot(), ref)
        if instance.host is None:
            raise WrongState(f"container {instance.name} has no host yet: {instance.reason}")
        return instance.id, instance.host

    def locate_host(self, ref: str) -> HostId:
        return find_host(self.snapshot(), ref).id

    def ready_hosts(self) -> Sequence[tuple[HostId, str]]:
        cluster = self.snapshot()
        return [(host, cluster.host_name(host)) for host in self.sessions.hosts()]

    # -- agents -----------------------------------------------------------------------------------------
    async def serve_session(
        self, host: HostId, certificate: str, channel: Channel, valid_from: float = 0.0
    ) -> None:
        made = valid_from + SKEW.total_seconds()

        def disowned() -> str:
            record = self.snapshot().hosts.get(host)
            if record is None:
                self.knocks.shown(host, certificate)
                return ""
            if not hosts.promote(self.snapshot(), host, certificate, made).empty:
                return ""
            words = hosts.disowned(record, certificate)
            if words and self.asks(host):
                name = record.spec.name
                words += f". If after the backup: flota node rm --force {name}, then flota fleet admit"
            return words

        async def begun() -> None:
            if not hosts.promote(self.snapshot(), host, certificate, made).empty:
                await self.committer.run(lambda fresh: hosts.promote(fresh, host, certificate, made))

        await self.sessions.serve(host, channel, disowned, begun)

    async def accept_pipe(self, host: HostId, certificate: str, pipe: Pipe) -> None:
        hosts.member(self.snapshot(), host, certificate)
        await self.pipes.accept(host, pipe)
