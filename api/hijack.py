"""Taking a connection over from the HTTP server, for byte streams in both directions (RFC 9110, 7.8).

Invariant: from `take_over` on the server neither reads, writes nor closes the connection; it is told when the
connection is lost, so that its handler is cancelled. A half-closed connection stays open for writing.
"""

from __future__ import annotations

import asyncio

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from aio.keepalive import PEOPLE, keep_alive
from model.errors import InvalidInput

UPGRADE = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {}\r\n\r\n"


class _Taken(asyncio.StreamReaderProtocol):
    def __init__(self, reader: asyncio.StreamReader, server: asyncio.BaseProtocol) -> None:
        super().__init__(reader)
        self._server = server

    def adopt(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._half = transport.get_extra_info("sslcontext") is None

    def eof_received(self) -> bool:
        """Whether the other half stays open, which TLS does not know."""
        super().eof_received()
        return self._half

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._server.connection_lost(exc)


class _Flow(asyncio.ReadTransport):
    """How a reader slows its connection down: not at all once that is closed, as one over TLS is gone then,
    while what had come by that time is still to be read."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport

    def pause_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()


class Taken(web.Response):
    """What a handler returns after it took its connection over: the server writes nothing."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


class Connection:
    """A taken-over connection: `api.ports.Pipe`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer


def asks_for(request: web.Request, protocol: str) -> bool:
    """True when the client asked to upgrade to `protocol`."""
    wishes = request.headers.get("Upgrade", "").lower()
    connection = [word.strip().lower() for word in request.headers.get("Connection", "").split(",")]
    return wishes == protocol and "upgrade" in connection


def require(request: web.Request, protocol: str) -> None:
    """Raises InvalidInput unless the client asked to upgrade to `protocol`."""
    if not asks_for(request, protocol):
        hint = f"Send the headers Connection: Upgrade and Upgrade: {protocol}"
        raise InvalidInput("this is a stream in both directions", hint=hint)


def take_over(request: web.Request, protocol: str = "") -> Connection:
    """The connection's raw bytes. With `protocol` a 101 reply is written first. The request's body must have
    been read. Raises ConnectionResetError when the client has gone."""
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client has gone")
    keep_alive(transport, PEOPLE)  # what it began must not wait for a client that vanished
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 16, loop=loop)
    taken = _Taken(reader, request.protocol)
    taken.adopt(transport)
    transport.set_protocol(taken)
    reader.set_transport(_Flow(transport))
    transport.resume_reading()
    writer = asyncio.StreamWriter(transport, taken, reader, loop)
    if protocol:
        writer.write(UPGRADE.format(protocol).encode())
    return Connection(reader, writer)
