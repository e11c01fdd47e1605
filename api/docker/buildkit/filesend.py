"""Outputs of a build, written to a session's client: an archive as it is, or files of a tree one by one.

Invariant: a client has the whole output when this returns, and says so by the end of its call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from aio.together import together
from api.docker.buildkit.diffcopy import KINDS
from api.docker.buildkit.grpc import ClientCall
from api.docker.buildkit.messages import DATA, ERROR, FIN, REQUEST, STAT, Bytes, Packet, Stat
from api.docker.buildkit.sessions import BuildSession
from api.docker.buildkit.untar import Untar
from model.errors import Damaged, InvalidInput, Unavailable, Unsupported

METHOD = "/moby.filesync.v1.FileSend/DiffCopy"
NUMBER = "buildkit-attachable-exporter-id"
PIECE = 1 << 20
Receiver = Callable[[BuildSession, int, AsyncIterator[bytes]], Awaitable[None]]


def receiver(kind: str) -> Receiver:
    """What takes an output of that kind."""
    return tree if kind == "local" else archive


async def archive(session: BuildSession, number: int, pieces: AsyncIterator[bytes]) -> None:
    """Raises Unsupported, and what the client says."""
    _takes(session)
    async with session.channel.call(METHOD, [(NUMBER, str(number))]) as call:
        async for data in pieces:
            for at in range(0, len(data), PIECE):
                await call.send(Bytes(data=data[at : at + PIECE]))
        await call.sent()
        if await call.receive(Bytes) is not None:
            raise InvalidInput("the client answers an output with data")


async def tree(session: BuildSession, number: int, pieces: AsyncIterator[bytes]) -> None:
    """By fsutil's protocol. Raises as `archive`, Damaged."""
    _takes(session)
    async with session.channel.call(METHOD, [(NUMBER, str(number))]) as call:
        sending = _Tree(call)
        await together((sending.run(pieces), sending.listen()))


class _Tree:
    """A tree that is sent: each file's contents once the client has asked for them."""

    def __init__(self, call: ClientCall) -> None:
        self._call = call
        self._asked: set[int] = set()
        self._count = 0
        self._over = False
        self._changed = asyncio.Event()

    async def listen(self) -> None:
        """Until the client has all. Raises InvalidInput, Unavailable."""
        try:
            while (packet := await self._call.receive(Packet)) is not None:
                if packet.type == FIN:
                    await self._call.send(Packet(type=FIN))
                    await self._call.sent()
                elif packet.type == ERROR:
                    words = " ".join(packet.data[:400].decode("utf-8", "replace").split())
                    raise InvalidInput(f"the client can't write the output: {words}")
                elif packet.type == REQUEST and 0 <= packet.id < self._count:
                    self._asked.add(packet.id)
                    self._changed.set()
                else:
                    raise Damaged(f"the client sent a packet of type {packet.type} out of turn")
        finally:
            self._over = True
            self._changed.set()

    async def run(self, pieces: AsyncIterator[bytes]) -> None:
        untar, open_ = Untar(), -1
        async for data in pieces:
            for made in untar.feed(data):
                if isinstance(made, bytes):
                    await self._contents(open_, made)
                    continue
                await self._closed(open_)
                open_ = await self._stat(made)
        untar.end()
        await self._closed(open_)
        await self._call.send(Packet(type=STAT))

    async def _stat(self, stat: Stat) -> int:
        """The number by which its contents are known; -1: it has none."""
        number, self._count = self._count, self._count + 1
        await self._call.send(Packet(type=STAT, stat=stat))
        if stat.mode & KINDS or stat.link:
            return -1
        while number not in self._asked:
            if self._over:
                raise Unavailable("the client takes no more of the output")
            self._changed.clear()
            await self._changed.wait()
        self._asked.discard(number)
        return number

    async def _contents(self, number: int, data: bytes) -> None:
        for at in range(0, len(data), PIECE):
            await self._call.send(Packet(type=DATA, id=number, data=data[at : at + PIECE]))

    async def _closed(self, number: int) -> None:
        if number >= 0:
            await self._call.send(Packet(type=DATA, id=number))


def _takes(session: BuildSession) -> None:
    if not session.serves(METHOD):
        raise Unsupported(
            "the client takes no outputs", hint="Name a destination: --output type=tar,dest=FILE"
        )
