"""Tars that a client sends by a request of its own, beside the one that builds of them.

`docker build -` does so with BuildKit: `POST /build?buildid=upload-request:ID` has the tar, `POST
/build?remote=upload-request&buildid=ID` the wish. Either may come first. Invariant: neither waits for the
other longer than WAIT, and the request with the tar ends once that was read, or will not be.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

from model.errors import AlreadyExists, Unavailable

WAIT = 30.0
"""Seconds."""
PREFIX = "upload-request:"
REMOTE = "upload-request"
Pieces = Callable[[], AsyncGenerator[bytes, None]]


class Uploads:
    def __init__(self) -> None:
        self._offered: dict[str, tuple[Pieces, asyncio.Future[None]]] = {}
        self._changed = asyncio.Event()

    async def offer(self, ident: str, pieces: Pieces) -> None:
        """Until a build is through with it. Raises AlreadyExists, Unavailable."""
        if ident in self._offered:
            raise AlreadyExists("there is a context for that build already")
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        mine = self._offered[ident] = (pieces, over)
        self._changed.set()
        self._changed = asyncio.Event()
        try:
            await asyncio.wait((over,), timeout=WAIT)
            if self._offered.get(ident) is mine:
                raise Unavailable(f"no build took the context within {WAIT:g} s")
            await over
        finally:
            if self._offered.get(ident) is mine:
                del self._offered[ident]

    @asynccontextmanager
    async def taken(self, ident: str) -> AsyncIterator[Pieces]:
        """Raises Unavailable."""
        try:
            async with asyncio.timeout(WAIT):
                while ident not in self._offered:
                    await self._changed.wait()
        except TimeoutError as error:
            raise Unavailable(f"the build's context did not come within {WAIT:g} s") from error
        pieces, over = self._offered.pop(ident)
        try:
            yield pieces
        finally:
            if not over.done():
                over.set_result(None)
