"""Readers of connections that were taken over from the HTTP server."""

from __future__ import annotations

import asyncio

from api.hijack import _Flow


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
