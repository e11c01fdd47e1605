"""Readers of connections that were taken over from the HTTP server."""

from __future__ import annotations

import asyncio
import socket

from aiohttp import web

from aio.keepalive import PEOPLE
from api.hijack import Taken, _Flow, take_over


class Closed(asyncio.Transport):
    """As asyncio's over TLS once it was closed from both sides: its protocol is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False
        self.calls: list[str] = []

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        assert not self.closed
        self.calls.append("pause")

    def resume_reading(self) -> None:
        assert not self.closed
        self.calls.append("resume")


async def test_reader_that_was_slowed_down_reads_on_after_its_connection_closed() -> None:
    transport = Closed()
    reader = asyncio.StreamReader(limit=10)
    reader.set_transport(_Flow(transport))
    reader.feed_data(b"x" * 30)
    assert transport.calls == ["pause"]
    transport.closed = True
    reader.feed_eof()
    assert await reader.read() == b"x" * 30


async def test_reader_that_has_caught_up_lets_its_connection_go_on() -> None:
    transport = Closed()
    reader = asyncio.StreamReader(limit=10)
    reader.set_transport(_Flow(transport))
    reader.feed_data(b"x" * 30)
    await reader.read(25)
    assert transport.calls == ["pause", "resume"]


async def test_taken_tcp_connection_asks_whether_its_client_lives() -> None:
    """A client that vanished would hold what it began for two hours."""
    found: list[tuple[int, int]] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        connection = take_over(request, "x")
        plain = connection.writer.get_extra_info("socket")
        found.append(
            (
                plain.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
            )
        )
        connection.writer.close()
        return Taken()

    app = web.Application()
    app.router.add_post("/", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert b"101" in await reader.readline()
        writer.close()
    finally:
        await runner.cleanup()
    assert found == [(1, PEOPLE.quiet)]
