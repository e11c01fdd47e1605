"""What a client sends right behind a request to upgrade: kept for who takes the connection over.

aiohttp's parser drops what follows such a request in the same segment, and closes on an early end of input.
Here stands a protocol in front of it, which hands requests on whole and keeps the rest. Invariant: a request
that asks for no upgrade passes as it came; one that does and is refused ends its connection.
"""

from __future__ import annotations

import asyncio
import re
import socket

from aiohttp import web

from api.hijack import Connection
from api.listen import BACKLOG

MOST_HEAD = 1 << 16
MOST_EARLY = 1 << 16
_LENGTH = re.compile(rb"\ncontent-length:[ \t]*(\d{1,15})[ \t]*\r", re.IGNORECASE)
_UPGRADE = re.compile(rb"\nupgrade:[ \t]*tcp[ \t]*\r", re.IGNORECASE)
_CHUNKED = re.compile(rb"\ntransfer-encoding:", re.IGNORECASE)
_END = b"\r\n\r\n"


class Watched(asyncio.Protocol):
    """In front of one connection's protocol."""

    def __init__(self, inner: asyncio.Protocol) -> None:
        self._inner = inner
        self._transport: asyncio.Transport | None = None
        self._head = bytearray()
        self._body = 0
        """Bytes of it that are still to come."""
        self._blind = False
        """Where requests end is not known any more: all is handed on."""
        self._upgrading = False
        self._early = bytearray()
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        while data and not self._blind:
            if self._body:
                part, data = data[: self._body], data[self._body :]
                self._body -= len(part)
                self._inner.data_received(part)
            elif self._upgrading:
                self._keep(data)
                return
            else:
                data = self._take_head(data)
        if data:
            self._inner.data_received(data)

    def _take_head(self, data: bytes) -> bytes:
        """Hand a head on once it is whole; what follows it."""
        searched = max(0, len(self._head) - len(_END))
        self._head += data
        end = self._head.find(_END, searched)
        if end < 0:
            self._blind = len(self._head) > MOST_HEAD
        if end < 0 and not self._blind:
            return b""
        end = len(self._head) if self._blind else end + len(_END)
        head, rest = bytes(self._head[:end]), bytes(self._head[end:])
        self._head.clear()
        length = _LENGTH.search(head)
        self._body = int(length[1]) if length else 0
        self._blind = self._blind or _CHUNKED.search(head) is not None
        self._upgrading = not self._blind and _UPGRADE.search(head) is not None
        self._inner.data_received(head)
        return rest

    def _keep(self, data: bytes) -> None:
        self._early += data
        if len(self._early) >= MOST_EARLY and self._transport is not None:
            self._transport.pause_reading()

    def hand_over(self, connection: Connection) -> None:
        """To who has taken the connection over."""
        if self._early:
            connection.reader.feed_data(bytes(self._early))
        if self._ended:
            connection.reader.feed_eof()

    def eof_received(self) -> bool | None:
        if self._upgrading:
            self._ended = True
            return True
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()


class WatchedSite(web.BaseSite):
    """As aiohttp's SockSite, each connection watched."""

    def __init__(self, runner: web.AppRunner, sock: socket.socket) -> None:
        super().__init__(runner, backlog=BACKLOG)
        self._sock = sock

    @property
    def name(self) -> str:
        return f"unix://{self._sock.getsockname()}"

    async def start(self) -> None:
        await super().start()
        server = self._runner.server
        assert server is not None, "the runner is not set up"
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Watched(server()), sock=self._sock, backlog=BACKLOG)
