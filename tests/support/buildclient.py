"""The client's end of a build's connection, for tests of the host's."""

from __future__ import annotations

import asyncio
import socket
from typing import TypeVar

from model.build import FROM_HOST, FromClient, FromHost, Unframer, pack

T = TypeVar("T")
DEADLINE = 20


class BuildClient:
    """Says and hears messages."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.heard: list[FromHost] = []
        self._unframer = Unframer(FROM_HOST)

    def say(self, *messages: FromClient) -> None:
        for message in messages:
            self.writer.write(pack(message))

    async def hear(self, kind: type[T]) -> T:
        """The next message of this type; what comes before it is in `heard`."""
        seen = 0
        async with asyncio.timeout(DEADLINE):
            while True:
                for at, message in enumerate(self.heard[seen:], seen):
                    if isinstance(message, kind):
                        del self.heard[at]
                        return message
                seen = len(self.heard)
                data = await self.reader.read(1 << 16)
                assert data, f"it ended with {self.heard}"
                self.heard += self._unframer.feed(data)

    def close(self) -> None:
        self.writer.close()


async def connected() -> tuple[BuildClient, asyncio.StreamReader, asyncio.StreamWriter]:
    """A client, and the host's end of its connection."""
    here, there = socket.socketpair()
    mine = await asyncio.open_connection(sock=here)
    theirs = await asyncio.open_connection(sock=there)
    return BuildClient(*mine), *theirs
