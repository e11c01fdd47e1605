"""The agent's session with its controller: one WebSocket over mutual TLS, rebuilt as a whole whenever it
ends.

Reader, writer, watchdog and the task that acts on Views are one TaskGroup: the first to fail ends all. Pings
are answered while a View is acted upon. The first attempt to connect again is immediate, later ones back off
with jitter. Nothing on the host depends on a session.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Protocol

import aiohttp

from agent import fleetregistry
from agent.dial import ANSWER_DEADLINE, pause
from agent.host import HostAgent
from aio.supervisor import in_thread
from aio.together import together
from model import wire
from model.codec import encode_wire
from model.errors import FlotaError, Forbidden
from model.view import View, ViewDelta

log = logging.getLogger("flota.session")
CONNECT_DEADLINE = 10.0
SILENCE = 3.0
"""Times the ping period without a word from the controller: the session is dead."""
MAX_FRAME = 256 << 20
BACKLOG = 16
"""Views and deltas that wait while one is acted upon; then the reader waits too."""


class Connection(Protocol):
    """A message stream with the controller: a WebSocket, or an in-memory pair in tests."""

    async def send(self, frame: bytes) -> None: ...

    async def receive(self) -> bytes | None: ...


class _Ended(Exception):
    """The session is over, in these words."""


class Session:
    """Made before its connection is: that shows the certificate of now."""

    def __init__(self, agent: HostAgent, *, epoch: int) -> None:
        self._agent = agent
        self._shown = agent.context.certificate
        self._epoch = epoch
        self._heard = 0.0
        self._silence = 30.0
        self._views: asyncio.Queue[View | ViewDelta] = asyncio.Queue(BACKLOG)
        self._recalling = False
        """The controller learns what this host knows: nothing here changes until it speaks again."""

    async def run(self, connection: Connection) -> None:
        """Until either side ends it. Raises Forbidden when the controller wants none of this host."""
        agent = self._agent
        await connection.send(encode_wire(self._hello()))
        welcome = await self._expect(connection, wire.Welcome)
        gone_back = not welcome.recall and welcome.view.revision < agent.context.view.revision
        if await agent.leaders.older(welcome.epoch) or gone_back:
            raise _Ended(
                "its state is older than what this host was told: epoch "
                f"{welcome.epoch} after {agent.leaders.newest}, revision {welcome.view.revision} after "
                f"{agent.context.view.revision}. What is put back by hand is to be restored: "
                "flota restore --in-place"
            )
        self._silence = welcome.ping_every * SILENCE
        self._heard = asyncio.get_running_loop().time()
        await in_thread(fleetregistry.trust, agent.context.state, welcome.registry)
        agent.reporter.restart()
        if welcome.recall:
            self._recalling = True
            await connection.send(encode_wire(self._recall()))
        else:
            agent.membership.begin()
            self._views.put_nowait(welcome.view)
        try:
            await together(self._sides(connection, welcome))
        finally:
            agent.membership.end()

    def _sides(self, connection: Connection, welcome: wire.Welcome) -> Iterator[Coroutine[Any, Any, None]]:
        """What goes on until one of it ends all."""
        yield self._read(connection)
        yield self._act(connection)
        yield self._report(connection)
        if welcome.protocol >= wire.WITH_DEPARTURES:
            yield self._follow(connection)
        yield self._watch()
        yield self._changed(self._agent.context.facts.address)

    def _hello(self) -> wire.Hello:
        context = self._agent.context
        return wire.Hello(
            epoch=self._epoch,
            boot_id=context.boot_id,
            facts=context.facts,
            statuses=tuple(self._agent.statuses()),
            report=self._agent.host_report(),
            own=tuple(self._agent.telling.own()),
        )

    def _recall(self) -> wire.Recall:
        """Of what the journal has, as far as it was ever told anything."""
        return wire.Recall(view=self._agent.context.view, statuses=tuple(self._agent.statuses()))

    async def _expect(self, connection: Connection, kind: type[wire.Welcome]) -> wire.Welcome:
        async with asyncio.timeout(CONNECT_DEADLINE):
            frame = await connection.receive()
        if frame is None:
            raise _Ended("the controller closed the connection")
        message = wire.decode_controller(frame)
        if isinstance(message, wire.Goodbye):
            _goodbye(message)
        if not isinstance(message, kind):
            raise _Ended(f"the controller answered {type(message).__name__}")
        return message

    async def _read(self, connection: Connection) -> None:
        while (frame := await connection.receive()) is not None:
            self._heard = asyncio.get_running_loop().time()
            await self._handle(connection, wire.decode_controller(frame))
        raise _Ended("the controller closed the connection")

    async def _handle(self, connection: Connection, message: wire.ControllerMessage) -> None:
        agent = self._agent
        if self._recalling and isinstance(message, wire.Membership | wire.FullView):
            self._recalling = False
            agent.membership.begin()
        match message:
            case wire.Ping(serial=serial):
                await connection.send(encode_wire(wire.Pong(serial=serial)))
            case wire.Reported(sequence=sequence):
                agent.reporter.taken(sequence)
            case wire.Delta(delta=delta):
                await self._views.put(delta)
            case wire.FullView(view=view) | wire.Welcome(view=view):
                await self._views.put(view)
            case wire.Membership(delta=delta, whole=whole, serial=serial):
                agent.membership.take(delta, whole=whole, serial=serial)
            case wire.Departing(instances=instances):
                for worker in agent.employed(instances):
                    worker.departing()
            case wire.Arrived(instances=instances):
                for worker in agent.employed(instances):
                    worker.arrived()
            case wire.Goodbye():
                _goodbye(message)

    async def _act(self, connection: Connection) -> None:
        """Views in their order; each is acknowledged once it is in the journal."""
        agent = self._agent
        while True:
            news = await self._views.get()
            if isinstance(news, View):
                await agent.take_view(news)
            elif not await agent.take_delta(news):
                await connection.send(encode_wire(wire.NeedView(have=agent.context.view.revision)))
                continue
            await connection.send(encode_wire(wire.Ack(revision=agent.context.view.revision)))

    async def _report(self, connection: Connection) -> None:
        while True:
            await connection.send(encode_wire(await self._agent.reporter.next()))

    async def _follow(self, connection: Connection) -> None:
        while True:
            await connection.send(encode_wire(wire.Follows(serial=await self._agent.membership.followed())))

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            left = self._heard + self._silence - loop.time()
            if left <= 0:
                raise _Ended(f"nothing heard from the controller for {self._silence:g} s")
            await asyncio.sleep(left)

    async def _changed(self, address: str) -> None:
        """The connection of an address that is gone would only be found dead by silence; a new certificate
        becomes this host's by the session that it opens."""
        context = self._agent.context
        while (context.facts.address, context.certificate) == (address, self._shown):
            await self._agent.reconnect.wait()
        if context.facts.address != address:
            raise _Ended(f"this host's address is {context.facts.address} now")
        raise _Ended("this host has a new certificate")


def _goodbye(message: wire.Goodbye) -> None:
    if not message.retry:
        raise Forbidden(f"the controller wants none of this host: {message.reason}")
    raise _Ended(f"the controller ended the session: {message.reason}")


class _WebSocket:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def send(self, frame: bytes) -> None:
        await self._socket.send_bytes(frame)

    async def receive(self) -> bytes | None:
        message = await self._socket.receive()
        return message.data if message.type is aiohttp.WSMsgType.BINARY else None


async def keep_session(
    agent: HostAgent,
    *,
    epoch: int,
    urls: Callable[[], list[str]],
    context: ssl.SSLContext,
    ended: Callable[[], None],
) -> None:
    """Hold a session with one of the controllers for ever, and tell when one `ended`. Ends with Forbidden
    when this host is not wanted."""
    failures = 0
    while True:
        loop = asyncio.get_running_loop()
        began = loop.time()
        url = urls()[failures % len(urls())]
        try:
            await _one_session(agent, epoch, url, context, ended)
        except Forbidden:
            raise
        except (_Ended, FlotaError, OSError, TimeoutError, aiohttp.ClientError) as error:
            log.info("session with %s: %s", url, str(error) or type(error).__name__)
        failures = 0 if loop.time() - began > 10 else failures + 1
        await asyncio.sleep(pause(failures - 1))


async def _one_session(
    agent: HostAgent, epoch: int, url: str, context: ssl.SSLContext, ended: Callable[[], None]
) -> None:
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=ANSWER_DEADLINE)
    session = Session(agent, epoch=epoch)
    async with (
        aiohttp.ClientSession(timeout=timeout) as client,
        asyncio.timeout(CONNECT_DEADLINE) as scope,
        client.ws_connect(
            f"{url}/v1/agents/session", ssl=context, max_msg_size=MAX_FRAME, autoping=True
        ) as socket,
    ):
        scope.reschedule(None)
        log.info("in session with %s", url)
        try:
            await session.run(_WebSocket(socket))
        finally:
            ended()
