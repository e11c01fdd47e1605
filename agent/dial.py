"""Connections that the agent offers to its controller, for calls to this host's own API.

Two are kept idle: TLS, then `GET /v1/agents/pipe` with `Upgrade: flota-pipe`; after the 101 the connection is
the controller's to use, and what comes over it is served by the same HTTP application that answers on the
host's socket. When the first byte of a call arrives the next spare is dialled, so no call waits for a
handshake (docs/adr/0001).
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Callable
from urllib.parse import urlsplit

from aio.backoff import delay, jittered

log = logging.getLogger("flota.dial")
SPARES = 2
DEADLINE = 10.0
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
        if not self.taken.done():
            self.taken.set_result(True)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.upgraded.done():
            self.upgraded.set_exception(error or ConnectionError("the controller closed the connection"))
        if not self.taken.done():
            self.taken.set_result(False)


class Dialer:
    """`handlers` makes the protocol of one HTTP connection (an aiohttp `web.Server`)."""

    def __init__(self, urls: Callable[[], list[str]], context: ssl.SSLContext, handlers: Handlers) -> None:
        self._urls = urls
        self._context = context
        self._handlers = handlers

    async def run(self) -> None:
        """Keep the spares dialled, for ever."""
        async with asyncio.TaskGroup() as group:
            for _ in range(SPARES):
                group.create_task(self._keep_spare())

    async def _keep_spare(self) -> None:
        failures = 0
        while True:
            try:
                pipe = await self._dial(failures)
            except (OSError, TimeoutError) as error:
                failures += 1
                log.debug("dialling a spare: %s", error)
                await asyncio.sleep(jittered(delay(failures, first=0.1, limit=2.0), random.random()))
                continue
            failures = 0
            if not await pipe.taken:
                failures = 1

    async def _dial(self, failures: int) -> _Pipe:
        urls = self._urls()
        url = urlsplit(urls[failures % len(urls)])
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(DEADLINE):
            transport, pipe = await loop.create_connection(
                lambda: _Pipe(self._handlers), url.hostname or "", url.port or 443, ssl=self._context
            )
            transport.write(
                f"GET /v1/agents/pipe HTTP/1.1\r\nHost: {url.netloc}\r\n"
                "Connection: Upgrade\r\nUpgrade: flota-pipe\r\n\r\n".encode()
            )
            await pipe.upgraded
        return pipe
