"""The host's end of a build's connection: frames in and out, questions and their answers.

Invariant: a client is asked before it sends; what answers no question ends the build in words. A client that
has gone, or reads no more, ends it too, and holds no more memory than the `Outbox` and one ask's pieces.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence

from agent.build.outbox import Outbox
from agent.build.streams import Stream
from model.build import (
    FROM_CLIENT,
    AskSecret,
    FromClient,
    FromHost,
    Object,
    Scan,
    Scanned,
    Secret,
    SendTar,
    SshData,
    Start,
    Taken,
    Typed,
    Unframer,
    Want,
    pack,
)
from model.errors import InvalidInput

CHUNK = 1 << 16
BURST = 1 << 16
"""Bytes that are written at once."""


class Link:
    """`read` and `write` run until the connection's end; all else is called by the build meanwhile."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._unframer = Unframer(FROM_CLIENT)
        self._early: list[FromClient] = []
        self._outbox = Outbox()
        self._told = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._closed = False
        self._numbers = itertools.count(1)
        self._asked = 0
        self._answers: dict[int, asyncio.Future[Scanned | Secret]] = {}
        self._objects: dict[int, Stream[Object]] = {}
        self._channels: dict[int, Stream[bytes]] = {}
        self.typed: Stream[Typed] = Stream()
        self._shell = False
        self._sent = 0
        self._taken = 0
        self._more_taken = asyncio.Event()

    # -- the connection -----------------------------------------------------------------------------
    async def start(self) -> Start | None:
        """The first message; None where the client left without one. Raises InvalidInput."""
        while not self._early:
            data = await self._reader.read(CHUNK)
            if not data:
                return None
            self._early += self._unframer.feed(data)
        first, *self._early = self._early
        if not isinstance(first, Start):
            raise InvalidInput("a build begins with what is asked for")
        return first

    async def read(self) -> None:
        """Until the client ends the connection. Raises InvalidInput where it says what it was not asked."""
        for message in self._early:
            await self._take(message)
        with contextlib.suppress(OSError):
            while data := await self._reader.read(CHUNK):
                for message in self._unframer.feed(data):
                    await self._take(message)

    async def left(self) -> None:
        """Once the client has ended the connection; what it still says is let be."""
        with contextlib.suppress(OSError):
            while await self._reader.read(CHUNK):
                pass

    async def write(self) -> None:
        """Until `close` was called and all is written, or nobody is there to read it."""
        with contextlib.suppress(OSError):
            while not self._closed or len(self._outbox):
                await self._told.wait()
                self._told.clear()
                while len(self._outbox):
                    self._writer.write(self._burst())
                    if not self._outbox.full:
                        self._room.set()
                    await self._writer.drain()

    def _burst(self) -> bytes:
        data = bytearray()
        while len(self._outbox) and len(data) < BURST:
            data += pack(self._outbox.take())
        return bytes(data)

    def tell(self, message: FromHost) -> None:
        """Never waits."""
        self._outbox.put(message)
        if self._outbox.full:
            self._room.clear()
        self._told.set()

    async def send(self, message: FromHost) -> None:
        """Once there is room for it."""
        await self._room.wait()
        self.tell(message)

    def close(self) -> None:
        """Nothing more will be told."""
        self._closed = True
        self._told.set()

    # -- questions ----------------------------------------------------------------------------------
    async def scan(self, context: str, paths: Sequence[str]) -> Scanned:
        answer = await self._answer(Scan(ask=self._next(), context=context, paths=tuple(paths)))
        assert isinstance(answer, Scanned)
        return answer

    async def secret(self, ident: str) -> bytes | None:
        answer = await self._answer(AskSecret(ask=self._next(), ident=ident))
        assert isinstance(answer, Secret)
        return answer.value

    async def want(self, context: str, digests: Sequence[str]) -> AsyncIterator[Object]:
        """Pieces of these objects as they come; the last piece of the last one is the end."""
        ask, left = self._next(), len(digests)
        pieces = self._objects[ask] = Stream()
        try:
            self.tell(Want(ask=ask, context=context, digests=tuple(digests)))
            while left:
                piece = await anext(pieces)
                left -= bool(piece.last or piece.gone)
                yield piece
        finally:
            del self._objects[ask]
            await pieces.close()

    async def tar(self, context: str) -> AsyncIterator[bytes]:
        """The stream that is this context, piece by piece. Raises InvalidInput where it broke off."""
        ask = self._next()
        pieces = self._objects[ask] = Stream()
        try:
            self.tell(SendTar(ask=ask, context=context))
            last = False
            while not last:
                piece = await anext(pieces)
                if piece.gone:
                    raise InvalidInput(f"the build context ended too early: {piece.gone[:400]}")
                last = piece.last
                yield piece.data
        finally:
            del self._objects[ask]
            await pieces.close()

    def channel(self) -> tuple[int, Stream[bytes]]:
        """A new one for SshData; `forget` it."""
        number = self._next()
        pieces = self._channels[number] = Stream()
        return number, pieces

    async def forget(self, number: int) -> None:
        pieces = self._channels.pop(number, None)
        if pieces is not None:
            await pieces.close()

    async def credit(self, size: int, window: int) -> None:
        """Until the client has taken all but `window` bytes of what it was sent, these included."""
        self._sent += size
        while self._sent - self._taken > max(window, size):
            self._more_taken.clear()
            await self._more_taken.wait()

    def open_shell(self) -> None:
        """The client may type from now on."""
        self._shell = True

    def _next(self) -> int:
        self._asked = next(self._numbers)
        return self._asked

    async def _answer(self, question: Scan | AskSecret) -> Scanned | Secret:
        future: asyncio.Future[Scanned | Secret] = asyncio.get_running_loop().create_future()
        self._answers[question.ask] = future
        try:
            self.tell(question)
            return await future
        finally:
            del self._answers[question.ask]

    # -- answers ------------------------------------------------------------------------------------
    async def _take(self, message: FromClient) -> None:
        match message:
            case Scanned() | Secret():
                self._answered(message)
            case Object():
                self._known(message.ask)
                if (pieces := self._objects.get(message.ask)) is not None:
                    await pieces.put(message)
            case SshData():
                self._known(message.channel)
                await self._ssh(message)
            case Typed():
                if not self._shell:
                    raise InvalidInput("a client that nobody asked types")
                await (self.typed.put(message) if message.data or message.rows else self.typed.end())
            case Taken():
                if not 0 < message.size <= self._sent - self._taken:
                    raise InvalidInput(f"a client takes {message.size} bytes that it was not sent")
                self._taken += message.size
                self._more_taken.set()
            case Start():
                raise InvalidInput("a second build on one connection")

    def _answered(self, message: Scanned | Secret) -> None:
        """What nobody waits for any more is let be."""
        self._known(message.ask)
        future = self._answers.get(message.ask)
        if future is not None and not future.done():
            future.set_result(message)

    async def _ssh(self, message: SshData) -> None:
        pieces = self._channels.get(message.channel)
        if pieces is None:
            return
        await (pieces.put(message.data) if message.data else pieces.end())

    def _known(self, ask: int) -> None:
        if not 0 < ask <= self._asked:
            raise InvalidInput(f"a client answers question {ask}, which it was not asked")
