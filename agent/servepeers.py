"""This host's door for other hosts: a TLS port at its underlay address, where they get layers.

Invariant: only hosts of the fleet come in, by their certificates; a host that can't listen there is a member
all the same, and says that it gives nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import ssl
from collections.abc import Awaitable, Callable, Collection
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from aiohttp import web
from msgspec.structs import replace

from agent import join
from agent.dialpeers import ControllerSwarm
from agent.host import HostAgent
from agent.keys import verifier
from aio.backoff import delay
from aio.mailbox import Bell
from aio.supervisor import Supervisor
from api.identity import of_certificate
from api.listen import heard, serve_tls
from api.server import runner
from image.peers.client import Names, PeerClient
from image.peers.partial import Partials
from image.peers.server import Caller, PeerServer
from image.peers.source import PeerSource
from image.registry.source import Source
from model.blobs import MAX_BLOBS
from model.errors import FlotaError, Forbidden, Unauthenticated
from model.ids import HostId

log = logging.getLogger("flota.agent")
LOOK_EVERY = 2.0
"""Seconds between two looks at which layers are here, and at which address we are."""
LISTEN_AGAIN = 300.0
"""Seconds at most until a port that could not be had is tried again."""


def names(fleet: str) -> Names:
    """Reads who a certificate of a host is (`image.peers.client.Names`)."""

    def name(certificate: dict[str, Any]) -> str:
        identity = of_certificate(certificate, fleet)
        if identity.role != "host":
            raise Forbidden("the certificate is no host's")
        return identity.id

    return name


def caller(fleet: str) -> Caller:
    """Who calls (`image.peers.server.Caller`)."""
    read = names(fleet)

    def who(request: web.Request) -> tuple[HostId, str]:
        transport = request.transport
        certificate = transport.get_extra_info("peercert") if transport is not None else None
        if not certificate or transport is None:
            raise Unauthenticated("a host's certificate is needed")
        der = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return HostId(read(certificate)), hashlib.sha256(der).hexdigest()

    return who


class PeerDoor:
    """`port` 0: this host gives nothing. `digests` is all that it has; `news`: there is more of it, tell it
    at once."""

    def __init__(
        self,
        agent: HostAgent,
        server: PeerServer,
        context: ssl.SSLContext,
        port: int,
        digests: Callable[[], Collection[str]],
        news: Bell,
    ) -> None:
        self._agent = agent
        self._server = server
        self._context = context
        self._port = port
        self._digests = digests
        self._app: web.AppRunner | None = None
        self._listens = ""
        self._failures = 0
        self._again = 0.0
        """When listening is tried again, by the event loop's clock."""
        self._news = news

    async def open(self) -> None:
        """Before this host first says what it is."""
        context = self._agent.context
        port = await self._listen(context.facts.address)
        context.facts = replace(context.facts, peer_port=port)

    async def run(self) -> None:
        """For ever: tell what is here, and follow the host's address."""
        while True:
            facts = self._agent.context.facts
            failed = self._failures and asyncio.get_running_loop().time() >= self._again
            if (facts.address != self._listens or failed) and self._port:
                await self.close()
                port = await self._listen(facts.address)
                if port != facts.peer_port:
                    await self._agent.resettle(replace(self._agent.context.facts, peer_port=port))
            if self._app is not None:
                self._agent.reporter.blobs(tuple(sorted(self._digests())[:MAX_BLOBS]))
            await self._news.wait(LOOK_EVERY)

    async def _listen(self, address: str) -> int:
        """The port; 0 where that can't be."""
        self._listens = address
        if not self._port or not address:
            return 0
        app = self._server.app()
        app.middlewares.insert(0, _heard)
        self._app = runner(app)
        await self._app.setup()
        try:
            port = await serve_tls(self._app, address, self._port, self._context)
        except FlotaError as error:
            self._failures += 1
            wait = delay(self._failures, first=LOOK_EVERY, limit=LISTEN_AGAIN)
            self._again = asyncio.get_running_loop().time() + wait
            log.warning("this host gives no layers to others: %s; again in %g s", error, wait)
            await self.close()
            return 0
        self._failures = 0
        return port

    async def close(self) -> None:
        if self._app is not None:
            app, self._app = self._app, None
            await app.cleanup()


@web.middleware
async def _heard(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    heard(request)
    return await handler(request)


class Sharing:
    """Both ends of it on this host: layers from others, and for others."""

    def __init__(self, enrollment: join.Enrollment, run: Path, registry: Source) -> None:
        calling, self._called = join.peer_contexts(enrollment, run)
        self._enrollment = enrollment
        tls = join.client_context(enrollment, run)
        self.swarm = ControllerSwarm(HostId(enrollment.host_id), lambda: enrollment.controllers, tls)
        self.partials = Partials()
        self._client = PeerClient(calling, names(enrollment.fleet_id))
        self.source = PeerSource(registry, self.swarm, self._client, self.partials)
        self.contexts = (calling, self._called, tls)
        """All that show who this host is."""
        self.news = Bell()
        """Rung when others should know soon what is here."""

    async def renewed(self) -> None:
        """They show another certificate, which tickets from now on are for."""
        await self.swarm.renew()
        await self._client.renew()

    async def serve(
        self, agent: HostAgent, supervisor: Supervisor, stack: AsyncExitStack, *, port: int, rate: int
    ) -> None:
        """Before this host first says what it is; the image store is open."""
        shelf, fleet = self.source.shelf, self._enrollment.fleet_id
        verify = verifier(self._enrollment.ca)
        clock = agent.context.clock
        server = PeerServer(shelf, self.partials, caller(fleet), verify, clock, rate=rate)

        def digests() -> Collection[str]:
            return shelf.digests() | self.partials.whole()

        door = PeerDoor(agent, server, self._called, port, digests, self.news)
        await door.open()
        stack.push_async_callback(door.close)
        supervisor.start("peers", door.run, restart=True)
