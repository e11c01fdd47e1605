"""The end points for copies of the registry, on a port of loopback in plain HTTP: a header tells whose
request it is, and documents are sealed by nothing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec
from aiohttp import web

from aio.clock import VirtualClock
from api.server import runner
from controller.registrycopies import Copies
from controller.snapshot import Cluster
from image.registry.server.app import registry_app
from image.registry.server.limits import Limits
from image.registry.server.registry import Registry, opened
from model.ids import HostId
from model.records import Host
from model.registrycopies import PATH, CopyOrders, CopyReport
from model.spec import HostSpec
from model.status import HostFacts
from tests.support.fleetregistry import Answer, Client, identify

WHO = "Flota-Host"


@dataclass
class ServedCopies:
    registry: Registry
    copies: Copies
    clock: VirtualClock
    client: Client
    port: int

    async def ask(self, host: str, method: str, path: str, data: object = None) -> Answer:
        return await self.client.ask(method, f"{PATH}{path}", data, **{WHO: host})

    async def report(self, host: str, report: CopyReport) -> CopyOrders:
        reply = await self.ask(host, "POST", "", msgspec.json.encode(report))
        assert reply.status == 200, reply
        return msgspec.json.decode(reply.body, type=CopyOrders)


def _host(name: str, number: int) -> Host:
    facts = HostFacts(hostname=name, address=f"192.0.2.{number}")
    return Host(id=HostId(name), spec=HostSpec(name=name), facts=facts, joined_at=0.0)


@contextlib.asynccontextmanager
async def copies_served(folder: Path, *hosts: str, limits: Limits) -> AsyncIterator[ServedCopies]:
    """All hosts are to have copies."""
    clock = VirtualClock()
    cluster = Cluster(hosts={HostId(name): _host(name, n) for n, name in enumerate(hosts, 1)})
    async with opened(folder, clock, limits) as registry:
        copies = Copies(
            registry,
            clock,
            lambda: cluster,
            lambda request: HostId(request.headers[WHO]),
            seal=lambda data, about: data,
            unseal=lambda data, about: data,
            number=len(hosts),
            own=frozenset(),
        )
        await copies.open()
        app = runner(registry_app(registry, identify, routes=copies.routes()))
        await app.setup()
        try:
            await web.TCPSite(app, "127.0.0.1", 0).start()
            port = app.addresses[0][1]
            async with aiohttp.ClientSession(auto_decompress=False) as session:
                client = Client(f"http://127.0.0.1:{port}", session)
                yield ServedCopies(registry, copies, clock, client, port)
        finally:
            await app.cleanup()
