"""Connections that the agent offers to its controller, for calls to this host's own API.

Two are kept idle: TLS, then `GET /v1/agents/pipe` with `Upgrade: flota-pipe`; after the 101 the connection is
the controller's to use, and what comes over it is served by the same HTTP application that answers on the
host's socket. When the first byte of a call arrives the next spare is dialled, so no call waits for a
handshake (docs/adr/0001). At most `LIMIT` connections are open at once. A dead idle one is noticed by TCP,
and none outlives the session: a controller that has lost this host has closed its end.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import ssl
from collections.abc import Callable
from urllib.parse import urlsplit

from aio.backoff import delay, jittered
from aio.keepalive import keep_alive

log = logging.getLogger("flota.dial")
SPARES = 2
LIMIT = 256
DEADLINE = 10.0
ANSWER_DEADLINE = 2.0
"""For TCP's first answer: TCP itself asks ever more rarely (RFC 6298, 5.5), so a host whose link was down
would be heard only long after the link is back."""
QUICK = 20
"""So many attempts follow each other closely before a controller is taken to be away for longer."""
Handlers = Callable[[], asyncio.Protocol]


class _Pipe(asyncio.Protocol):
    """Waits for the answer to the upgrade, then for the first byte of a call, then is an HTTP server's."""

    def __init__(self, handlers: Handlers) -> None:
        loop = asyncio.get_running_loop()
        self._handlers = handlers
        self._transport: asyncio.Transport | None = None
        self._head = b""
        self.upgraded: asyncio.Future[None] = loop.create_future()
        self.taken: asyncio.Future[bool] = loop.create_future()
        """True: a call came; False: the connection went away unused."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self.upgraded.done():
            self._serve(data)
            return
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end and len(self._head) < 16384:
            return
        status = head.split(b"\r\n")[0]
        if b" 101 " not in status:
            self.upgraded.set_exception(ConnectionError(f"no pipe: {status.decode(errors='replace')[:80]}"))
            assert self._transport is not None
            self._transport.close()
            return
        self.upgraded.set_result(None)
        if rest:
            self._serve(rest)

    def _serve(self, data: bytes) -> None:
        assert self._transport is not None
        server = self._handlers()
        self._transport.set_protocol(server)
        server.connection_made(self._transport)
        server.data_received(data)
        self.taken.set_result(True)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.upgraded.done():
            self.upgraded.set_exception(error or ConnectionError("the controller closed the connection"))
        if not self.taken.done():
            self.taken.set_result(False)

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    @property
    def idle(self) -> bool:
        return self.upgraded.done() and not self.taken.done()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def pause(failures: int) -> float:
    """Seconds before the attempt after so many that failed."""
    return jittered(delay(failures, first=0.1, limit=0.5 if failures < QUICK else 2.0), random.random())


async def _answered(host: str, port: int) -> socket.socket:
    """Connected to the first address that answers. Raises OSError, TimeoutError."""
    loop = asyncio.get_running_loop()
    problem: Exception = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        found = socket.socket(family, kind, protocol)
        found.setblocking(False)
        try:
            async with asyncio.timeout(ANSWER_DEADLINE):
                await loop.sock_connect(found, address)
        except (OSError, TimeoutError) as error:
            found.close()
            problem = error
        except BaseException:
            found.close()
            raise
        else:
            return found
    raise problem


class Dialer:
    """`handlers` makes the protocol of one HTTP connection (an aiohttp `web.Server`)."""

    def __init__(self, urls: Callable[[], list[str]], context: ssl.SSLContext, handlers: Handlers) -> None:
        self._urls = urls
        self._context = context
        self._handlers = handlers
        self._pipes: list[_Pipe] = []

    async def run(self) -> None:
        """Keep the spares dialled, for ever. Spares end with this; calls under way do not."""
        async with asyncio.TaskGroup() as group:
            for _ in range(SPARES):
                group.create_task(self._keep_spare())

    def renew(self) -> None:
        """Dial the spares anew; calls under way go on."""
        for pipe in self._pipes:
            if pipe.idle:
                pipe.abort()

    async def _keep_spare(self) -> None:
        failures = 0
        while True:
            await self._room()
            try:
                pipe = await self._dial(failures)
            except (OSError, TimeoutError) as error:
                failures += 1
                log.debug("dialling a spare: %s", str(error) or type(error).__name__)
                await asyncio.sleep(pause(failures))
                continue
            try:
                failures = 0 if await pipe.taken else failures + 1
            except asyncio.CancelledError:
                pipe.abort()
                raise
            if failures:
                await asyncio.sleep(pause(failures - 1))

    async def _room(self) -> None:
        """Wait until fewer than `LIMIT` connections are open."""
        while True:
            self._pipes = [pipe for pipe in self._pipes if pipe.open]
            if len(self._pipes) < LIMIT:
                return
            log.warning("%d calls are under way, no more are taken", LIMIT)
            await asyncio.sleep(1.0)

    async def _dial(self, failures: int) -> _Pipe:
        urls = self._urls()
        url = urlsplit(urls[failures % len(urls)])
        pipe = _Pipe(self._handlers)
        try:
            async with asyncio.timeout(DEADLINE):
                connection = await _answered(url.hostname or "", url.port or 443)
                transport, _ = await asyncio.get_running_loop().create_connection(
                    lambda: pipe, sock=connection, ssl=self._context, server_hostname=url.hostname
                )
                keep_alive(transport)
                transport.write(
                    f"GET /v1/agents/pipe HTTP/1.1\r\nHost: {url.netloc}\r\n"
                    "Connection: Upgrade\r\nUpgrade: flota-pipe\r\n\r\n".encode()
                )
                await pipe.upgraded
        except BaseException:
            pipe.abort()
            raise
        self._pipes.append(pipe)
        return pipe
