"""A fleet in memory behind the real HTTP applications: `api.ports.ControllerPort` without a kernel.

Hosts are reached as in a real fleet: `open_pipe` gives one end of a connection, on whose other end the host's
own application answers.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager

import msgspec
from aiohttp import web

from api.channels import Channel, Dropped, Pipe
from api.hijack import Connection
from api.listen import serve_connection
from api.server import host_app, runner
from controller.backup import archive
from controller.pki import Authority
from controller.snapshot import Cluster
from model import api as m
from model.blobs import BlobPeer, BlobPeers, BlobWord
from model.build import BuildPlace, Placed
from model.diagnosis import diagnose
from model.doctor import CheckUp, HostCheck
from model.errors import NotFound, Unauthenticated, Unavailable, WrongState
from model.events import Event
from model.ids import HostId, NetworkId, ServiceId, resolve
from model.limits import UpdateLimits
from model.netoptions import encrypted
from model.networkrules import validate_network
from model.records import (
    FleetSettings,
    Host,
    Network,
    RegistryToken,
    ResolvedAttachment,
    Service,
)
from model.registries import NOBODY, Login
from model.registrycopies import RegistryStatus, RepositoryInfo, TagInfo
from model.renewal import RenewReply, RenewRequest
from model.settingrules import changed
from model.spec import HostSpec, NetworkSpec, Replicated, ServiceSpec
from model.status import HostState, Phase
from model.validate import check, validate_service
from tests.support.fakebuilds import placed
from tests.support.fakehost import FakeHost
from tests.support.fakeinstances import FakeInstances
from tests.support.fakepolicies import FakePolicies

Attachments = tuple[ResolvedAttachment, ...]


class FakeFleet(FakeInstances, FakePolicies):
    """`api.ports.ControllerPort` with hosts n1 … nN, all ready. Use as a context manager."""

    def __init__(self, hosts: int = 3) -> None:
        FakeInstances.__init__(self)
        FakePolicies.__init__(self)
        self._count = hosts
        self.runners: dict[HostId, web.AppRunner] = {}
        self.services: dict[ServiceId, Service] = {}
        self.networks: dict[NetworkId, Network] = {}
        self.settings = FleetSettings()
        self.registry_tokens: dict[str, RegistryToken] = {}
        self.registry_tags = {"1": f"sha256:{'1' * 64}", "2": f"sha256:{'2' * 64}"}
        """Of team/app."""
        self.specs: dict[HostId, HostSpec] = {}
        self.ended: list[Event] = []
        self.silent: set[HostId] = set()
        """Hosts that offer no pipe."""
        self.sessions: list[tuple[HostId, bytes]] = []
        self.offered: dict[HostId, Pipe] = {}
        self.words: list[tuple[HostId, BlobWord]] = []
        self.pipes: list[Pipe] = []
        """That `open_pipe` gave."""
        self.builds: dict[HostId, int] = {}

    async def __aenter__(self) -> FakeFleet:
        for index in range(1, self._count + 1):
            ident, name = HostId(f"{index:064x}"), f"n{index}"
            self.hosts[ident] = FakeHost(ident, name, self.tasks)
            self.specs[ident] = HostSpec(name=name)
            self.runners[ident] = runner(host_app(self.hosts[ident]))
            await self.runners[ident].setup()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.tasks.close()
        for made in self.runners.values():
            await made.cleanup()

    # -- services
    def _service(self, ref: str) -> Service:
        names = [(i, s.spec.name) for i, s in self.services.items()]
        return self.services[ServiceId(resolve("service", ref, names))]

    def list_services(self) -> Sequence[m.ServiceInfo]:
        return [self.get_service(i) for i in self.services]

    def get_service(self, ref: str) -> m.ServiceInfo:
        service = self._service(ref)
        infos = tuple(i for i in self.list_instances() if i.instance.service == service.id)
        wanted = service.spec.mode.replicas if isinstance(service.spec.mode, Replicated) else len(self.hosts)
        running = sum(i.status.phase is Phase.RUNNING for i in infos)
        return m.ServiceInfo(service=service, running=running, wanted=wanted, instances=infos)

    async def create_service(self, spec: ServiceSpec, login: Login = NOBODY) -> m.ServiceInfo:
        self.logins.append(login)
        check("service", validate_service(spec))
        ident = ServiceId(self._id())
        self.services[ident] = Service(id=ident, spec=spec, created_at=time.time(), revision=1)
        wanted = self.get_service(ident).wanted
        for slot in range(1, wanted + 1):
            name = f"{spec.name}.{slot}"
            own = tuple(port for port in spec.container.ports if port.mode == "host")
            made = msgspec.structs.replace(spec.container, ports=own)
            info = await self.create_instance(m.CreateInstance(spec=made, name=name, start=True))
            _, container = self._find(info.instance.id)
            container.instance = msgspec.structs.replace(
                container.instance, service=ident, service_name=spec.name, slot=slot
            )
        return self.get_service(ident)

    async def update_service(
        self, ref: str, request: m.UpdateService, login: Login = NOBODY
    ) -> m.ServiceInfo:
        self.logins.append(login)
        service = self._service(ref)
        if request.revision not in (0, service.revision):
            from model.errors import StaleRevision

            raise StaleRevision(f"service {ref} has changed since it was read")
        self.services[service.id] = msgspec.structs.replace(
            service,
            spec=request.spec,
            previous=service.spec,
            revision=service.revision + 1,
            generation=service.generation + 1,
        )
        return self.get_service(service.id)

    async def rollback_service(self, ref: str, revision: int = 0) -> m.ServiceInfo:
        previous = self._service(ref).previous
        if previous is None:
            raise WrongState(f"service {ref} has no earlier spec to go back to")
        return await self.update_service(ref, m.UpdateService(spec=previous, revision=revision))

    async def scale_service(self, ref: str, replicas: int) -> m.ServiceInfo:
        service = self._service(ref)
        spec = msgspec.structs.replace(service.spec, mode=Replicated(replicas=replicas))
        return await self.update_service(ref, m.UpdateService(spec=spec))

    async def remove_service(self, ref: str) -> None:
        service = self._service(ref)
        for info in self.get_service(ref).instances:
            await self.remove_instance(info.instance.id, force=True, volumes=False)
        del self.services[service.id]

    # -- hosts
    def list_hosts(self) -> Sequence[m.HostInfo]:
        return [self.get_host(host) for host in self.hosts]

    def get_host(self, ref: str) -> m.HostInfo:
        host = self.hosts[self.locate_host(ref)]
        state = HostState.LOST if host.id in self.silent else HostState.READY
        record = Host(id=host.id, spec=self.specs[host.id], facts=host.facts(), state=state)
        return m.HostInfo(host=record, connected=host.id not in self.silent, instances=len(host.containers))

    async def expect_away(self, ref: str, request: m.HostAway) -> None:
        self.get_host(ref)

    async def update_host(self, ref: str, request: m.UpdateHost) -> m.HostInfo:
        ident = self.locate_host(ref)
        labels = {**self.specs[ident].labels, **request.labels_set}
        labels = {k: v for k, v in labels.items() if k not in request.labels_remove}
        availability = request.availability or self.specs[ident].availability
        self.specs[ident] = msgspec.structs.replace(
            self.specs[ident], labels=labels, availability=availability
        )
        return self.get_host(ident)

    async def remove_host(self, ref: str, *, force: bool) -> None:
        ident = self.locate_host(ref)
        if not force and ident not in self.silent:
            raise WrongState(f"host {ref} is ready", hint="Stop its agent, or use force")
        del self.hosts[ident]

    async def create_token(self, request: m.CreateToken) -> m.TokenCreated:
        return m.TokenCreated(id=self._id(), token="flota-1-a-b", expires_at=time.time() + request.ttl)

    async def join(self, request: m.JoinRequest) -> m.JoinReply:
        if request.secret != "good":
            raise Unauthenticated("the join token is not valid")
        return m.JoinReply(host_id=self._id(), fleet_id="fleet", certificate="", ca="")

    async def renew(self, host: HostId, certificate: str, request: RenewRequest) -> RenewReply:
        del host, certificate
        return RenewReply(certificate=request.csr)

    async def registry_status(self) -> RegistryStatus:
        return RegistryStatus(address="127.0.0.1:5000", repositories=1, blobs=2, bytes=30, wanted=2)

    async def list_repositories(self) -> Sequence[RepositoryInfo]:
        return [RepositoryInfo(name="team/app", tags=1, manifests=1, bytes=30, copies=0)]

    async def list_repository_tags(self, repository: str) -> Sequence[TagInfo]:
        if repository != "team/app":
            raise NotFound(f"the registry has no repository {repository}")
        kind = "application/vnd.oci.image.manifest.v1+json"
        return [
            TagInfo(name=tag, digest=digest, media_type=kind) for tag, digest in self.registry_tags.items()
        ]

    async def remove_registry_manifest(self, ref: str) -> None:
        tag = ref.removeprefix("team/app:")
        if tag not in self.registry_tags:
            raise NotFound(f"the registry has no {ref}")
        del self.registry_tags[tag]

    async def create_registry_token(self, request: m.CreateRegistryToken) -> m.RegistryTokenCreated:
        token = RegistryToken(id=self._id(), name=request.name, scope=request.scope, prefix=request.prefix)
        self.registry_tokens[token.id] = token
        return m.RegistryTokenCreated(token=token, secret="flota-registry-x", registry="127.0.0.1:5000")

    def list_registry_tokens(self) -> Sequence[RegistryToken]:
        return list(self.registry_tokens.values())

    async def remove_registry_token(self, ref: str) -> None:
        names = [(t.id, t.name) for t in self.registry_tokens.values()]
        del self.registry_tokens[resolve("registry token", ref, names)]

    # -- networks
    def list_networks(self) -> Sequence[m.NetworkInfo]:
        return [m.NetworkInfo(network=n) for n in self.networks.values()]

    def get_network(self, ref: str) -> m.NetworkInfo:
        names = [(i, n.spec.name) for i, n in self.networks.items()]
        return m.NetworkInfo(network=self.networks[NetworkId(resolve("network", ref, names))])

    async def create_network(self, spec: NetworkSpec) -> m.NetworkInfo:
        check("network", validate_network(spec))
        ident = NetworkId(self._id())
        self.networks[ident] = Network(id=ident, spec=spec, vni=4096, created_at=time.time())
        return self.get_network(ident)

    async def rotate_keys(self, ref: str) -> m.NetworkInfo:
        found = self.get_network(ref)
        if not encrypted(found.network.spec.options):
            raise WrongState(f"network {ref} is not encrypted")
        return found

    async def remove_network(self, ref: str) -> None:
        del self.networks[self.get_network(ref).network.id]

    def diagnose(self, checks: Sequence[HostCheck], failed: Mapping[str, str]) -> CheckUp:
        return diagnose(checks, failed, {ident: host.name for ident, host in self.hosts.items()}, 4789)

    async def prune_networks(self, chosen: Callable[[Network], bool]) -> m.NetworksPruned:
        used = {a.network for _, c in self._all().values() for a in c.instance.attachments}
        gone = [n for n in self.networks.values() if n.id not in used and chosen(n)]
        for network in gone:
            del self.networks[network.id]
        return m.NetworksPruned(removed=tuple(n.spec.name for n in gone))

    async def connect_network(self, ref: str, request: m.ConnectNetwork) -> m.InstanceInfo:
        network = self.get_network(ref).network
        wish = ResolvedAttachment(network=network.id, **msgspec.structs.asdict(request.endpoint))
        return self._attach(request.container, lambda old: (*old, wish))

    async def disconnect_network(self, ref: str, request: m.DisconnectNetwork) -> m.InstanceInfo:
        gone = self.get_network(ref).network.id
        return self._attach(request.container, lambda old: tuple(a for a in old if a.network != gone))

    def _attach(self, ref: str, change: Callable[[Attachments], Attachments]) -> m.InstanceInfo:
        host, container = self._find(ref)
        instance = container.instance
        container.instance = msgspec.structs.replace(instance, attachments=change(instance.attachments))
        return self._info(host, container)

    async def update_bandwidth(self, ref: str, request: m.UpdateBandwidth) -> m.InstanceInfo:
        return self._info(*self._find(ref))

    async def update_limits(self, ref: str, request: UpdateLimits) -> m.InstanceInfo:
        host, container = self._find(ref)
        given = {name: v for name, v in msgspec.structs.asdict(request).items() if v is not None}
        restart = given.pop("restart", container.instance.spec.restart)
        limits = msgspec.structs.replace(container.instance.spec.resources, **given)
        spec = msgspec.structs.replace(container.instance.spec, resources=limits, restart=restart)
        container.instance = msgspec.structs.replace(container.instance, spec=spec)
        return self._info(host, container)

    async def update_ports(self, ref: str, request: m.UpdatePorts) -> m.InstanceInfo:
        host, container = self._find(ref)
        left = tuple(p for p in container.instance.spec.ports if p not in request.remove)
        spec = msgspec.structs.replace(container.instance.spec, ports=(*left, *request.add))
        container.instance = msgspec.structs.replace(container.instance, spec=spec)
        return self._info(host, container)

    # -- fleet
    def get_settings(self) -> FleetSettings:
        return self.settings

    def recovery(self) -> m.RecoveryInfo:
        return m.RecoveryInfo()

    async def admit_host(self, ref: str) -> m.HostInfo:
        raise NotFound(f"no such knocking host: {ref}")

    async def settle(self) -> None:
        raise WrongState("no host is waited for")

    def backup(self) -> AsyncIterator[bytes]:
        settings = msgspec.structs.replace(self.settings, fleet_id="fleet", revision=1)
        cluster, _ = Cluster().apply((settings, *self.services.values()), (), 1)
        return archive.stream(cluster, 1, Authority.new("fleet"), "", time.time())

    async def update_settings(self, request: m.UpdateSettings) -> FleetSettings:
        self.settings = changed(self.settings, request)
        return self.settings

    def info(self) -> m.FleetInfo:
        counts = {"hosts": len(self.hosts), "hosts_ready": len(self.ready_hosts())}
        live = sum(c.status.phase.live for _, c in self._all().values())
        return m.FleetInfo(name="test", fleet_id="fleet", version="0.1.0", revision=7,
                           services=len(self.services),
                           instances=len(self._all()), instances_running=live, **counts)  # fmt: skip

    def why(self, ref: str) -> m.Why:
        info = self.get_instance(ref)
        return m.Why(kind="instance", id=info.instance.id, name=info.instance.name, summary="it runs",
                     reasons=("least loaded of 3 hosts",))  # fmt: skip

    async def events(self, since: float | None, until: float | None) -> AsyncIterator[Event]:
        for number in range(3):
            yield Event(type="container", action=("create", "start", "die")[number], id="a" * 64, name="web",
                        at=1000.0 + number, cursor=number)  # fmt: skip
        if until is None:
            await asyncio.Event().wait()

    def locate_instance(self, ref: str) -> tuple[str, HostId]:
        host, container = self._find(ref)
        return container.instance.id, host.id

    def ready_hosts(self) -> Sequence[tuple[HostId, str]]:
        return [(i, h.name) for i, h in self.hosts.items() if i not in self.silent]

    def place_build(self, wish: BuildPlace) -> AbstractContextManager[tuple[HostId, Placed]]:
        ready = {ident: host for ident, host in self.hosts.items() if ident not in self.silent}
        return placed(ready, self.builds, wish)

    async def open_pipe(self, host: HostId) -> Pipe:
        if host in self.silent:
            raise Unavailable(f"host {self.hosts[host].name} does not answer")
        near, far = socket.socketpair()
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=far)
        except asyncio.CancelledError:  # who asked is gone; the other end is asyncio's by now
            near.close()
            raise
        assert isinstance(transport, asyncio.Transport)
        serve_connection(self.runners[host], transport)
        reader, writer = await asyncio.open_connection(sock=near)
        self.pipes.append(Connection(reader, writer))
        return self.pipes[-1]

    def give_up(self, why: str) -> None:
        """As a controller does with a host's pipes once it is lost."""
        for pipe in self.pipes:
            pipe.reader.set_exception(Dropped(why))
            pipe.writer.transport.abort()

    async def serve_session(
        self, host: HostId, certificate: str, channel: Channel, valid_from: float = 0.0
    ) -> None:
        while (frame := await channel.receive()) is not None:
            self.sessions.append((host, frame))
            await channel.send(b"re:" + frame)

    def share_blob(self, host: HostId, certificate: str, word: BlobWord) -> BlobPeers:
        self.words.append((host, word))
        return BlobPeers(outside=True)

    def peers_for(self, host: HostId, digest: str, sources: Sequence[HostId]) -> BlobPeers:
        peers = tuple(BlobPeer(host=one, address="192.0.2.1", port=7421, whole=True) for one in sources)
        return BlobPeers(peers=peers, ticket=f"{host[:4]} {digest[:11]}")

    async def accept_pipe(self, host: HostId, certificate: str, pipe: Pipe) -> None:
        self.offered[host] = pipe
        await pipe.writer.wait_closed()
