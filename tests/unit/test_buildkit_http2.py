"""One HTTP/2 connection in memory: its pace, its bounds, and peers that break the protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from hyperframe.frame import ContinuationFrame, DataFrame, Frame, HeadersFrame, WindowUpdateFrame

from api.docker.buildkit.http2 import MOST_STREAMS, WINDOW, Http2, Http2Stream
from model.errors import Unavailable
from tests.support.waiting import until

PATIENCE = 30
HEADERS = [(":method", "POST"), (":path", "/a"), (":scheme", "http"), (":authority", "x")]


class _Kept(asyncio.Transport):
    """What is written, and whether it was closed."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        super().__init__()
        self.data = bytearray()
        self._reader = reader
        self._closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.data += data

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._reader.feed_eof()


class Peer:
    """A client's end by `h2`, which can also be made to send what no `h2` would."""

    def __init__(self) -> None:
        self.streams: list[Http2Stream] = []
        self.events: list[h2.events.Event] = []
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self._reader = asyncio.StreamReader()
        self._transport = _Kept(self._reader)
        protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())
        writer = asyncio.StreamWriter(self._transport, protocol, self._reader, asyncio.get_running_loop())
        self.served = Http2(self._reader, writer, client=False, opened=self.streams.append)

    @property
    def closed(self) -> bool:
        return self._transport.is_closing()

    def say(self, *frames: Frame) -> None:
        """What `h2` has to say, and then frames of no one's."""
        self._reader.feed_data(self.h2.data_to_send() + b"".join(one.serialize() for one in frames))

    def hear(self) -> list[h2.events.Event]:
        data = bytes(self._transport.data)
        self._transport.data.clear()
        new = self.h2.receive_data(data) if data else []
        self.events += new
        return new

    async def begin(self, end: bool = False, headers: Sequence[tuple[str, str]] = ()) -> Http2Stream:
        known = len(self.streams)
        self.h2.send_headers(self.h2.get_next_available_stream_id(), [*HEADERS, *headers], end_stream=end)
        self.say()
        await until(lambda: len(self.streams) > known or self.closed, deadline=PATIENCE, what="a stream")
        return self.streams[-1]

    async def cut_off(self) -> None:
        await until(lambda: self.closed, deadline=PATIENCE, what="the end of the connection")


@asynccontextmanager
async def connected() -> AsyncIterator[Peer]:
    peer = Peer()
    peer.h2.initiate_connection()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(peer.served.run())
        try:
            peer.say()
            heard = h2.events.RemoteSettingsChanged
            await until(
                lambda: any(isinstance(one, heard) for one in peer.hear()), deadline=PATIENCE, what="settings"
            )
            peer.say()  # that they were heard
            yield peer
        finally:
            running.cancel()


async def test_window_of_a_stream_opens_as_its_data_is_read() -> None:
    async with connected() as peer:
        stream = await peer.begin()
        peer.h2.send_data(1, b"x" * 16_000)
        peer.say()
        before = peer.h2.local_flow_control_window(1)
        for _ in range(WINDOW // 16_000 - 1):
            peer.h2.send_data(1, b"x" * 16_000)
            peer.say()
        peer.hear()
        assert peer.h2.local_flow_control_window(1) < before  # nobody has read
        size = 0
        while size < 60 * 16_000:
            size += len(await asyncio.wait_for(stream.read(), PATIENCE))
        await until(
            lambda: bool(peer.hear()) or peer.h2.local_flow_control_window(1) > before, deadline=PATIENCE,
            what="room",
        )  # fmt: skip
        assert not peer.closed


async def test_peer_that_sends_more_than_its_window_is_cut_off() -> None:
    async with connected() as peer:
        await peer.begin()
        for _ in range(WINDOW // 16_000 + 2):
            peer.say(DataFrame(stream_id=1, data=b"x" * 16_000))
        await peer.cut_off()


async def test_sender_waits_for_the_peers_window() -> None:
    async with connected() as peer:
        stream = await peer.begin(end=True)
        await stream.answer([(":status", "200")])
        sending = asyncio.create_task(stream.send(b"y" * 100_000, end=True))
        got = 0

        def all_that_fits() -> bool:
            nonlocal got
            got += sum(len(one.data) for one in peer.hear() if isinstance(one, h2.events.DataReceived))
            return got == 65_535

        await until(all_that_fits, deadline=PATIENCE, what="a whole window")
        assert not sending.done()
        peer.h2.increment_flow_control_window(100_000)
        peer.h2.increment_flow_control_window(100_000, 1)
        peer.say()
        await asyncio.wait_for(sending, PATIENCE)


async def test_padding_alone_is_no_end_of_a_stream() -> None:
    async with connected() as peer:
        stream = await peer.begin()
        reading = asyncio.create_task(stream.read())
        peer.say(DataFrame(stream_id=1, data=b"", flags=["PADDED"], pad_length=200))
        peer.h2.send_data(1, b"more", end_stream=True)
        peer.say()
        assert await asyncio.wait_for(reading, PATIENCE) == b"more"
        assert await asyncio.wait_for(stream.read(), PATIENCE) == b""


async def test_more_streams_at_once_than_allowed_cut_the_peer_off() -> None:
    async with connected() as peer:
        block = peer.h2.encoder.encode(HEADERS)
        frames = [HeadersFrame(1 + 2 * n, data=block, flags=["END_HEADERS"]) for n in range(MOST_STREAMS + 1)]
        peer.say(*frames)
        await peer.cut_off()
        assert len(peer.streams) <= MOST_STREAMS


async def test_headers_that_grow_when_they_are_read_cut_the_peer_off() -> None:
    async with connected() as peer:
        encoder = peer.h2.encoder
        first = encoder.encode([*HEADERS, ("big", "v" * 3000)])
        block = encoder.encode(HEADERS) + b"\xbe" * 4000  # the same entry of the table, again and again
        peer.say(HeadersFrame(1, data=first, flags=["END_HEADERS"]))
        await until(lambda: len(peer.streams) == 1, deadline=PATIENCE, what="a stream")
        peer.say(HeadersFrame(3, data=block, flags=["END_HEADERS"]))
        await peer.cut_off()
        assert len(peer.streams) == 1


async def test_headers_in_pieces_without_end_cut_the_peer_off() -> None:
    async with connected() as peer:
        peer.say(HeadersFrame(1, data=b""), *(ContinuationFrame(1, data=b"") for _ in range(100)))
        await peer.cut_off()


async def test_peer_that_makes_us_reset_its_streams_is_cut_off() -> None:
    async with connected() as peer:
        block = peer.h2.encoder.encode(HEADERS)
        for n in range(2000):
            peer.say(
                HeadersFrame(1 + 2 * n, data=block, flags=["END_HEADERS"]),
                WindowUpdateFrame(1 + 2 * n, window_increment=(1 << 31) - 1),
            )
        await peer.cut_off()


@pytest.mark.parametrize("end", ["reset", "close"])
async def test_stream_whose_peer_leaves_is_told(end: str) -> None:
    async with connected() as peer:
        stream = await peer.begin()
        reading = asyncio.create_task(stream.read())
        if end == "reset":
            peer.h2.reset_stream(1)
        else:
            peer.h2.close_connection(1)
        peer.say()
        with pytest.raises(Unavailable):
            await asyncio.wait_for(reading, PATIENCE)


def _filled(stream: Http2Stream) -> bool:
    return len(stream._data) > 10


async def test_data_of_a_stream_that_was_given_up_does_not_fill_the_connection() -> None:
    async with connected() as peer:
        for _ in range(8):
            stream = await peer.begin()
            for _ in range(WINDOW // 16_000):
                peer.h2.send_data(stream.ident, b"x" * 16_000)
            peer.say()
            await until(partial(_filled, stream), deadline=PATIENCE, what="data")
            stream.reset()
            peer.hear()
            await until(
                lambda: bool(peer.hear()) or peer.h2.outbound_flow_control_window > WINDOW, deadline=PATIENCE,
                what="room",
            )  # fmt: skip
        assert not peer.closed
