"""An attach or exec as the API's AttachSession: the runtime's handle, and how it ends."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

from agent.runtime.base import ExecHandle
from model.streams import STDERR, Exit

REPLAY = 8 << 20
"""Bytes of memory for what an attached client is told of the log."""
_ITEM = 100
"""Bytes that an item costs beside its text."""


async def last_of(
    items: AsyncIterator[tuple[int, bytes]], limit: int = REPLAY
) -> Iterable[tuple[int, bytes]]:
    """The end of a log, as far as that much memory goes, and a word of what was left out. It is read at once,
    for a container waits while somebody is attached who does not read."""
    kept: deque[tuple[int, bytes]] = deque()
    size = dropped = 0
    async for item in items:
        kept.append(item)
        size += len(item[1]) + _ITEM
        while size > limit:
            size -= len(kept.popleft()[1]) + _ITEM
            dropped += 1
    if dropped:
        kept.appendleft(
            (STDERR, b"flota: %d earlier lines are left out; the container's logs have them\n" % dropped)
        )
    return kept


class HandleSession:
    """`ending` gives the exit after the streams are over; `kill` delivers a signal; `before` comes before the
    streams."""

    def __init__(
        self,
        handle: ExecHandle,
        *,
        ending: Callable[[], Awaitable[Exit]],
        kill: Callable[[int], Awaitable[None]],
        before: Iterable[tuple[int, bytes]] = (),
    ) -> None:
        self._handle = handle
        self._ending = ending
        self._kill = kill
        self._before = deque(before)

    async def read(self) -> tuple[int, bytes] | None:
        if self._before:
            return self._before.popleft()
        return await self._handle.read()

    async def write(self, data: bytes) -> None:
        await self._handle.write(data)

    async def close_stdin(self) -> None:
        await self._handle.close_stdin()

    async def resize(self, rows: int, cols: int) -> None:
        with contextlib.suppress(OSError):  # it has ended, and needs no size any more
            await self._handle.resize(rows, cols)

    async def signal(self, signal: int) -> None:
        await self._kill(signal)

    async def finish(self) -> Exit:
        return await self._ending()

    async def close(self) -> None:
        await self._handle.close()


class DetachedSession:
    """An exec that nobody watches: started, and over as far as the caller is concerned."""

    async def read(self) -> tuple[int, bytes] | None:
        return None

    async def write(self, data: bytes) -> None:
        return

    async def close_stdin(self) -> None:
        return

    async def resize(self, rows: int, cols: int) -> None:
        return

    async def signal(self, signal: int) -> None:
        return

    async def finish(self) -> Exit:
        return Exit(exit_code=0)

    async def close(self) -> None:
        return
