"""Ways to an agent: what a controller hears and says by. Seams, with no more than their words."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Channel(Protocol):
    """A message stream with an agent: a WebSocket, or an in-memory pair in tests."""

    async def send(self, frame: bytes) -> None: ...

    async def receive(self) -> bytes | None:
        """None once the other side is gone."""
        ...

    async def close(self) -> None: ...


class Pipe(Protocol):
    """Raw bytes to a host's own API, over a connection which that host dialled."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Dropped(ConnectionResetError):
    """What a pipe's reader raises once the fleet has given its host up, in words for people."""
