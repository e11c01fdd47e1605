"""A host's own Docker socket: the Docker API over what this host is, with no controller in any way.

Invariant: the socket is 0660 from its first moment, as the fleet's is; a request about a container goes to
this host's own API over a connection within this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from aiohttp import web

from agent.host import HostAgent
from agent.ownrules import ELSEWHERE
from agent.serveown import OwnContainers, refuse_fleets
from aio.release import running
from api.channels import Pipe
from api.docker.app import docker_runner
from api.docker.early import WatchedSite
from api.docker.state import State
from api.docker.table import HOST
from api.hijack import Connection
from api.identity import ADMIN
from api.listen import serve_connection, serve_unix
from model.api import (
    ConnectNetwork,
    DisconnectNetwork,
    FleetInfo,
    HostInfo,
    InstanceInfo,
    NetworkInfo,
    NetworksPruned,
    ServiceInfo,
    UpdateHost,
    UpdateService,
)
from model.blobs import BlobPeers
from model.build import BuildPlace, Placed
from model.errors import InvalidInput, NotFound
from model.ids import HostId, IdSource, NetworkId, resolve
from model.records import Host, Network
from model.registries import NOBODY, Login
from model.spec import HostSpec, NetworkSpec, ServiceSpec
from model.status import HostState
from model.version import VERSION
from model.view import NetworkView
from net.host import PREDEFINED_BRIDGE

SOCKET = "host-docker.sock"
"""Beside the host's native socket. The fleet's may stand there too, where a controller runs."""
BUFFER = 1 << 18
"""Bytes that wait in a connection to this host's own API."""


class HostDocker(OwnContainers):
    """`api.docker.ports.DockerPort` of one host. `native` serves its own API."""

    def __init__(self, agent: HostAgent, native: web.AppRunner, ids: IdSource) -> None:
        super().__init__(agent, ids)
        self._native = native

    # -- the host -----------------------------------------------------------------------------------
    def info(self) -> FleetInfo:
        infos = self.list_instances()
        return FleetInfo(
            name=self.here.name,
            fleet_id=self.here.id,
            version=VERSION,
            revision=0,
            hosts=1,
            hosts_ready=1,
            services=0,
            instances=len(infos),
            instances_running=sum(info.status.phase == "running" for info in infos),
            release=running(),
        )

    def list_hosts(self) -> Sequence[HostInfo]:
        context = self._agent.context
        spec = HostSpec(name=self.here.name, labels=context.facts.labels)
        host = Host(id=context.host, spec=spec, facts=context.facts, state=HostState.READY)
        conditions = (*self._agent.host_report().conditions, *context.facts.warnings)
        return [HostInfo(host=host, connected=True, instances=len(context.wishes), conditions=conditions)]

    def get_host(self, ref: str) -> HostInfo:
        self.locate_host(ref)
        return self.list_hosts()[0]

    def locate_host(self, ref: str) -> HostId:
        try:
            return HostId(resolve("node", ref, [(self.here.id, self.here.name)]))
        except NotFound as error:
            raise InvalidInput(
                f"this is the socket of host {self.here.name} alone, not of {ref[:80]}", hint=ELSEWHERE
            ) from error

    def ready_hosts(self) -> Sequence[tuple[HostId, str]]:
        return [(self.here.id, self.here.name)]

    @contextlib.contextmanager
    def place_build(self, wish: BuildPlace) -> Iterator[tuple[HostId, Placed]]:
        if wish.host:
            self.locate_host(wish.host)
        yield self.here.id, Placed(host=self.here.name, why="it was asked for on this host's own socket")

    def peers_for(self, host: HostId, digest: str, sources: Sequence[HostId]) -> BlobPeers:
        raise NotFound("this socket knows of no other hosts")

    async def open_pipe(self, host: HostId) -> Pipe:
        """Within this process."""
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        served, _ = await loop.connect_accepted_socket(asyncio.Protocol, theirs)
        serve_connection(self._native, served)
        reader, writer = await asyncio.open_connection(sock=ours, limit=BUFFER)
        return Connection(reader, writer)

    # -- networks: the fleet's, as far as they stand here -------------------------------------------
    def list_networks(self) -> Sequence[NetworkInfo]:
        views = self._agent.context.view.networks.values()
        return [NetworkInfo(network=_network(view)) for view in sorted(views, key=lambda v: v.spec.name)]

    def get_network(self, ref: str) -> NetworkInfo:
        views = self._agent.context.view.networks
        names = ((ident, view.spec.name) for ident, view in views.items())
        ident = NetworkId(resolve("network", ref, names))
        held = (self._agent.context.records.values(), self._agent.context.wishes)
        records, wishes = held
        endpoints = {
            wishes[record.instance].name: ",".join(filter(None, (foot.ipv4, foot.ipv6)))
            for record in records
            for foot in record.endpoints
            if foot.network == ident and record.instance in wishes
        }
        return NetworkInfo(network=_network(views[ident]), endpoints=endpoints)

    async def create_network(self, spec: NetworkSpec) -> NetworkInfo:
        raise refuse_fleets(f"network {spec.name}")

    async def remove_network(self, ref: str) -> None:
        raise refuse_fleets(f"network {self.get_network(ref).network.spec.name}")

    async def prune_networks(self, chosen: Callable[[Network], bool]) -> NetworksPruned:
        """Whether nobody uses a network is for the fleet to know."""
        return NetworksPruned(removed=())

    async def connect_network(self, ref: str, request: ConnectNetwork) -> InstanceInfo:
        raise refuse_fleets(f"network {self.get_network(ref).network.spec.name}")

    async def disconnect_network(self, ref: str, request: DisconnectNetwork) -> InstanceInfo:
        raise refuse_fleets(f"network {self.get_network(ref).network.spec.name}")

    # -- no manager: no route leads here ------------------------------------------------------------
    def list_services(self) -> Sequence[ServiceInfo]:
        return ()

    def get_service(self, ref: str) -> ServiceInfo:
        raise NotFound(f"no such service: {ref[:128]}")

    async def create_service(self, spec: ServiceSpec, login: Login = NOBODY) -> ServiceInfo:
        _no_manager()

    async def update_service(self, ref: str, request: UpdateService, login: Login = NOBODY) -> ServiceInfo:
        _no_manager()

    async def rollback_service(self, ref: str, revision: int = 0) -> ServiceInfo:
        _no_manager()

    async def remove_service(self, ref: str) -> None:
        _no_manager()

    async def update_host(self, ref: str, request: UpdateHost) -> HostInfo:
        _no_manager()

    async def remove_host(self, ref: str, *, force: bool) -> None:
        _no_manager()


def _no_manager() -> NoReturn:
    raise refuse_fleets("this")


def _network(view: NetworkView) -> Network:
    return Network(
        id=view.id,
        spec=view.spec,
        vni=view.vni,
        vip_ranges=view.vip_ranges,
        keys=view.keys,
        predefined=view.id == PREDEFINED_BRIDGE,
    )


def path_beside(native: str) -> Path:
    """Of the host's Docker socket, by that of its native one."""
    return Path(native).with_name(SOCKET)


@contextlib.asynccontextmanager
async def docker_socket(
    agent: HostAgent, native: web.AppRunner, path: Path, group: str = ""
) -> AsyncIterator[HostDocker]:
    """Serve it at `path`. Raises AlreadyExists, InvalidInput as `serve_unix`."""
    port, state = HostDocker(agent, native, lambda: secrets.token_hex(32)), State("host")
    served = docker_runner(port, lambda _: ADMIN, state, HOST)
    await served.setup()
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        await serve_unix(served, str(path), group=group, site=WatchedSite)
        try:
            yield port
        finally:
            path.unlink(missing_ok=True)
    finally:
        await state.close()
        await served.cleanup()
