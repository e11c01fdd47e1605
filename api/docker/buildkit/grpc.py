"""Calls of gRPC over one HTTP/2 connection: made to a session's client, and served to a client of ours.

Source: github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md. Invariant: a call that is left, by its end or by an
error, holds no stream; what a peer says in it is bounded by `framing`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

from api.docker.buildkit.framing import (
    OK,
    UNIMPLEMENTED,
    UNKNOWN,
    Unframer,
    error_of,
    frame,
    quoted,
    status_of,
    unquoted,
)
from api.docker.buildkit.http2 import Http2, Http2Stream
from api.docker.buildkit.wire import Message, decode, encode
from model.errors import FlotaError, InvalidInput, Unavailable

log = logging.getLogger("flota.api")
M = TypeVar("M", bound=Message)
Metadata = Sequence[tuple[str, str]]
CONTENT_TYPE = "application/grpc"


class Call:
    """Messages of one call, either end's."""

    def __init__(self, stream: Http2Stream, what: str) -> None:
        self._stream = stream
        self._what = what
        self._unframer = Unframer()
        self._messages: deque[bytes] = deque()

    @property
    def metadata(self) -> Mapping[str, str]:
        return self._stream.headers

    async def send(self, message: Message) -> None:
        """Raises Unavailable."""
        await self._stream.send(frame(encode(message)))

    async def sent(self) -> None:
        """Nothing more is sent."""
        await self._stream.finish()

    async def receive(self, type_: type[M]) -> M | None:
        """None at the end. Raises what the peer's status says, InvalidInput, Unavailable."""
        while not self._messages:
            data = await self._stream.read()
            if not data:
                if not self._unframer.between:
                    raise Unavailable(f"{self._what} broke off")
                return None
            self._messages.extend(self._unframer.feed(data))
        return decode(self._messages.popleft(), type_)


class ClientCall(Call):
    async def send(self, message: Message) -> None:
        try:
            await super().send(message)
        except Unavailable:
            if self._stream.over:
                self._judge()
            raise

    async def receive(self, type_: type[M]) -> M | None:
        await self._stream.begun()
        message = await super().receive(type_)
        if message is None:
            self._judge()
        return message

    def _judge(self) -> None:
        """Raises how the call ended, where that was not well."""
        said = self._stream.trailers or self._stream.headers
        text = said.get("grpc-status", "")
        if text == str(OK):
            return
        if not text.isdecimal() or len(text) > 3:
            status = self._stream.headers.get(":status", "")[:10]
            raise Unavailable(f"{self._what} ended without a status (HTTP {status})")
        raise error_of(int(text), unquoted(said.get("grpc-message", "")[:4000]), self._what)


class Channel:
    """What calls are made over."""

    def __init__(self, connection: Http2) -> None:
        self._connection = connection

    def close(self) -> None:
        """The connection ends, and with it all calls."""
        self._connection.close()

    @asynccontextmanager
    async def call(self, path: str, metadata: Metadata = ()) -> AsyncIterator[ClientCall]:
        """`path`: `/package.Service/Method`. Raises Unavailable."""
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", CONTENT_TYPE),
            *metadata,
        ]
        stream = await self._connection.request(headers)
        try:
            yield ClientCall(stream, path.rpartition(".")[2])
        finally:
            stream.reset()

    async def ask(self, path: str, question: Message, type_: type[M], *, within: float) -> M:
        """One answer to one question, in so many seconds. Raises what the peer says."""
        try:
            async with asyncio.timeout(within), self.call(path) as call:
                await call.send(question)
                await call.sent()
                answer = await call.receive(type_)
                if answer is None:
                    raise InvalidInput(f"{path} gave no answer")
                await call.receive(type_)  # its status
                return answer
        except TimeoutError as error:
            raise Unavailable(f"the client did not answer {path} within {within:g} s") from error


class ServerCall(Call):
    """`path` is what was called."""

    @property
    def path(self) -> str:
        return self._stream.headers.get(":path", "")[:200]

    async def asked(self, type_: type[M]) -> M:
        """The one message of a question. Raises InvalidInput."""
        message = await self.receive(type_)
        if message is None:
            raise InvalidInput(f"{self.path} without a message")
        return message

    async def begin(self) -> None:
        await self._stream.answer([(":status", "200"), ("content-type", CONTENT_TYPE)])

    async def end(self, code: int = OK, message: str = "") -> None:
        words = [("grpc-message", quoted(message))] if message else []
        await self._stream.answer([("grpc-status", str(code)), *words], end=True)


Handler = Callable[[ServerCall], Awaitable[None]]


async def serve(call: ServerCall, handlers: Mapping[str, Handler]) -> None:
    """One call, to its end."""
    with contextlib.suppress(Unavailable):  # nobody is there to hear how it ended
        await call.begin()
        handler = handlers.get(call.path)
        if handler is None:
            await call.end(UNIMPLEMENTED, f"{call.path} is not served here")
            return
        try:
            await handler(call)
        except FlotaError as error:
            await call.end(*status_of(error))
        except Exception:
            log.exception("%s failed", call.path)
            await call.end(UNKNOWN, "internal error. The log of this process has the details")
        else:
            await call.end()


@asynccontextmanager
async def served(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handlers: Mapping[str, Handler]
) -> AsyncIterator[asyncio.Task[None]]:
    """Calls of a client are answered until the block is left; the task ends with its connection."""
    async with asyncio.TaskGroup() as group:
        calls: set[asyncio.Task[None]] = set()

        def opened(stream: Http2Stream) -> None:
            task = group.create_task(_one(stream, handlers))
            stream.broken = partial(_cancel, task)
            calls.add(task)
            task.add_done_callback(calls.discard)

        running = group.create_task(Http2(reader, writer, client=False, opened=opened).run())
        try:
            yield running
        finally:
            running.cancel()
            for task in calls:
                task.cancel()


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()


async def _one(stream: Http2Stream, handlers: Mapping[str, Handler]) -> None:
    try:
        await serve(ServerCall(stream, "the call"), handlers)
    finally:
        stream.broken = None
        stream.reset()
