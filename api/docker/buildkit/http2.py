"""One HTTP/2 connection over a byte stream that was taken over, as its client or its server (RFC 9113).

`h2` keeps the protocol's state; here are the socket, the streams and their pace. Invariant: what a peer makes
us keep is bounded: streams, headers, and per stream no more data than its window, which opens as data is
read (and what `frameguard` bounds). A peer that breaks the protocol, or a bound, ends the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from api.docker.buildkit.frameguard import FRAME, MOST_HEADERS, MOST_RESETS, FrameGuard
from model.errors import Exhausted, Unavailable

Headers = Sequence[tuple[str, str]]
CHUNK = 1 << 16
MOST_STREAMS = 100
WINDOW = 1 << 20
"""Bytes of one stream that a peer sends ahead of its reader."""
MOST_UNREAD = 16 * WINDOW
"""Bytes of all streams: those that nobody reads for a while must not hold up the others."""
PREFACE = 24
"""Bytes that a client sends before its first frame."""


class Http2Stream:
    """One request and its answer. `headers` are the first that the peer sent, `trailers` the last."""

    def __init__(self, connection: Http2, ident: int) -> None:
        self._connection = connection
        self.ident = ident
        self.headers: dict[str, str] = {}
        self.trailers: dict[str, str] = {}
        self.broken: Callable[[], None] | None = None
        """Called when the peer gives the stream up, or its connection ends."""
        self._data: deque[tuple[bytes, int]] = deque()
        self._ended = False
        self._broken = ""
        self._changed = asyncio.Event()

    async def begun(self) -> dict[str, str]:
        """The peer's headers. Raises Unavailable."""
        while not self.headers:
            self._check()
            if self._ended:
                raise Unavailable("the peer ended a stream without a word")
            await self._wait()
        return self.headers

    async def read(self) -> bytes:
        """The next data; empty at the end of what the peer sends. Raises Unavailable."""
        while not self._data:
            if self._ended:
                return b""
            self._check()
            await self._wait()
        data, size = self._data.popleft()
        self._connection.took(self, size)
        return data

    async def send(self, data: bytes, *, end: bool = False) -> None:
        """At the peer's pace. Raises Unavailable."""
        rest = memoryview(data)
        while True:
            self._check()
            room = min(self._connection.room(self), len(rest))
            if room or not rest:
                part, rest = rest[:room], rest[room:]
                self._connection.put(self, bytes(part), end=end and not rest)
                await self._connection.flush()
                if not rest:
                    return
            else:
                await self._wait()

    async def finish(self) -> None:
        """Nothing more is sent. A peer that has ended the stream needs no end of ours."""
        if not self.over:
            await self.send(b"", end=True)

    @property
    def over(self) -> bool:
        """Whether the peer has said all, and takes nothing any more."""
        return self._ended and bool(self._broken)

    async def answer(self, headers: Headers, *, end: bool = False) -> None:
        """Headers, or trailers at the end. Raises Unavailable."""
        self._check()
        self._connection.answer(self, headers, end=end)
        await self._connection.flush()

    def reset(self) -> None:
        """Give it up; nothing more comes of it. Idempotent."""
        self._connection.reset(self)

    # -- by the connection --------------------------------------------------------------------------
    def heard(self, headers: dict[str, str]) -> None:
        if self.headers:
            self.trailers = headers
        else:
            self.headers = headers
        self.wake()

    def received(self, data: bytes, size: int) -> None:
        self._data.append((data, size))
        self.wake()

    def end(self) -> None:
        self._ended = True
        self.wake()

    def breaks(self, why: str) -> None:
        self._broken = self._broken or why
        self.wake()
        if self.broken is not None:
            self.broken()

    def wake(self) -> None:
        self._changed.set()

    def unread(self) -> int:
        """Bytes that came and that nobody read; they are forgotten."""
        size = sum(size for _, size in self._data)
        self._data.clear()
        return size

    def _check(self) -> None:
        if self._broken:
            raise Unavailable(self._broken)

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()


class Http2:
    """`run` it as a task; `opened` is called with each stream that the peer begins (a server's)."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        client: bool,
        opened: Callable[[Http2Stream], None] | None = None,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._opened = opened
        self._streams: dict[int, Http2Stream] = {}
        self._resets = 0
        self._guard = FrameGuard(0 if client else PREFACE)
        self._over = ""
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=client, header_encoding=None)
        )
        self._h2.initiate_connection()
        self._h2.update_settings(
            {
                h2.settings.SettingCodes.ENABLE_PUSH: 0,
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: MOST_STREAMS,
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: WINDOW,
                h2.settings.SettingCodes.MAX_FRAME_SIZE: FRAME,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: MOST_HEADERS,
            }
        )
        self._h2.increment_flow_control_window(MOST_UNREAD)

    async def run(self) -> None:
        """Until either end closes the connection, or the peer breaks the protocol."""
        why = "the connection ended"
        try:
            await self.flush()
            while data := await self._reader.read(CHUNK):
                self._guard.feed(data)
                for event in self._h2.receive_data(data):
                    self._take(event)
                await self.flush()
        except h2.exceptions.ProtocolError as error:
            why = f"the peer speaks no HTTP/2: {error}"[:200]
        except Exhausted as error:
            why = f"the peer asks for too much: {error}"[:200]
        except (OSError, Unavailable) as error:
            why = f"the connection broke: {error}"[:200]
        finally:
            await self._end(why)

    async def request(self, headers: Headers, *, end: bool = False) -> Http2Stream:
        """Begin one, as a client. Raises Unavailable."""
        if self._over:
            raise Unavailable(self._over)
        try:
            ident = self._h2.get_next_available_stream_id()
            self._h2.send_headers(ident, headers, end_stream=end)
        except h2.exceptions.ProtocolError as error:
            raise Unavailable(f"no more streams: {error}") from error
        stream = self._streams[ident] = Http2Stream(self, ident)
        await self.flush()
        return stream

    def close(self) -> None:
        """The peer is told, and the connection closed; `run` ends by it."""
        if not self._over:
            with _unless_ended():
                self._h2.close_connection()
                self._writer.write(self._h2.data_to_send())
        self._writer.close()

    # -- for streams --------------------------------------------------------------------------------
    async def flush(self) -> None:
        data = self._h2.data_to_send()
        try:
            if data:
                self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise Unavailable(f"the connection broke: {error}") from error

    def room(self, stream: Http2Stream) -> int:
        try:
            window = self._h2.local_flow_control_window(stream.ident)
        except h2.exceptions.ProtocolError:
            return 0
        return max(0, min(window, self._h2.max_outbound_frame_size))

    def put(self, stream: Http2Stream, data: bytes, *, end: bool) -> None:
        if data or end:
            self._guard.moved()
            self._try(stream, lambda: self._h2.send_data(stream.ident, data, end_stream=end))

    def answer(self, stream: Http2Stream, headers: Headers, *, end: bool) -> None:
        self._try(stream, lambda: self._h2.send_headers(stream.ident, headers, end_stream=end))

    def took(self, stream: Http2Stream, size: int) -> None:
        with _unless_ended():
            self._h2.acknowledge_received_data(size, stream.ident)
            self._writer.write(self._h2.data_to_send())

    def reset(self, stream: Http2Stream) -> None:
        if self._streams.pop(stream.ident, None) is None:
            return
        unread = stream.unread()
        stream.breaks("the stream was given up")
        with _unless_ended():
            if unread:
                self._h2.acknowledge_received_data(unread, stream.ident)
        with _unless_ended():
            self._h2.reset_stream(stream.ident, h2.errors.ErrorCodes.CANCEL)
        if not self._over and not self._writer.is_closing():
            self._writer.write(self._h2.data_to_send())

    def _try(self, stream: Http2Stream, send: Callable[[], None]) -> None:
        try:
            send()
        except h2.exceptions.ProtocolError as error:
            stream.breaks(f"the stream can't be written: {error}"[:200])
            raise Unavailable(f"the stream can't be written: {error}"[:200]) from error

    # -- what comes ---------------------------------------------------------------------------------
    def _take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived():
                self._begin(event.stream_id, event.headers)
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                if stream := self._streams.get(event.stream_id):
                    stream.heard(_texts(event.headers))
            case h2.events.DataReceived():
                self._received(event)
            case h2.events.StreamEnded():
                if stream := self._streams.get(event.stream_id):
                    stream.end()
            case h2.events.StreamReset():
                self._was_reset(event)
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                for stream in self._streams.values():
                    stream.wake()
            case h2.events.ConnectionTerminated():
                if event.error_code:
                    raise Unavailable(f"the peer ended it with error {event.error_code}")

    def _begin(self, ident: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        if self._opened is None:
            raise Unavailable("the peer began a stream that nobody serves")
        stream = self._streams[ident] = Http2Stream(self, ident)
        stream.heard(_texts(headers))
        self._opened(stream)

    def _received(self, event: h2.events.DataReceived) -> None:
        stream = self._streams.get(event.stream_id)
        size = event.flow_controlled_length
        if stream is not None and event.data:
            stream.received(event.data, size)
            return
        with _unless_ended():  # padding, or of a stream that was given up
            self._h2.acknowledge_received_data(size, event.stream_id)

    def _was_reset(self, event: h2.events.StreamReset) -> None:
        self._resets += 1
        if self._resets > MOST_RESETS:
            raise Exhausted("the peer breaks more streams than an honest one")
        stream = self._streams.pop(event.stream_id, None)
        if stream is not None:
            stream.breaks("the peer gave the stream up")

    async def _end(self, why: str) -> None:
        self._over = why
        for stream in self._streams.values():
            stream.breaks(why)
        self._streams.clear()
        with contextlib.suppress(OSError, h2.exceptions.ProtocolError):
            self._writer.write(self._h2.data_to_send())
        self._writer.close()


def _unless_ended() -> contextlib.suppress:
    """`h2` refuses words about a stream or a connection that the peer has ended meanwhile."""
    return contextlib.suppress(h2.exceptions.ProtocolError)


def _texts(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """By name; one that comes more than once has its values between commas."""
    found: dict[str, str] = {}
    for raw, value in headers:
        name, text = raw.decode("ascii", "replace"), value.decode("utf-8", "replace")
        found[name] = f"{found[name]},{text}" if name in found else text
    return found
