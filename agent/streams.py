"""An attach or exec as the API's AttachSession: the runtime's handle, and how it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

from agent.runtime.base import ExecHandle
from model.streams import Exit


class HandleSession:
    """`ending` gives the exit after the streams are over; `kill` delivers a signal."""

    def __init__(
        self,
        handle: ExecHandle,
        *,
        ending: Callable[[], Awaitable[Exit]],
        kill: Callable[[int], Awaitable[None]],
        before: tuple[tuple[int, bytes], ...] = (),
    ) -> None:
        self._handle = handle
        self._ending = ending
        self._kill = kill
        self._before = list(reversed(before))

    async def read(self) -> tuple[int, bytes] | None:
        if self._before:
            return self._before.pop()
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
