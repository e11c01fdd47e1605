"""Many sources, one stream: items as they come, from however many hosts.

Invariant: one bounded queue stands between sources and reader, so a slow reader slows all of them; when the
reader leaves, every source is closed before it goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import TypeVar, cast

from aio.supervisor import Supervisor

T = TypeVar("T")
QUEUE = 256


class _End:
    """A source has ended: well, or with an error."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error


async def merge(sources: Sequence[AsyncIterator[T]], *, size: int = QUEUE) -> AsyncIterator[T]:
    """Items of all sources until the last ends. The first error of a source is raised, and ends the others.

    Close it with `contextlib.aclosing` when leaving early.
    """
    queue: asyncio.Queue[T | _End] = asyncio.Queue(size)

    async def pump(source: AsyncIterator[T]) -> None:
        end = _End()
        try:
            # A cancelled put leaves the source where it is; closed here, it has closed what it holds.
            async with aclosing(cast("AsyncGenerator[T, None]", source)) as items:
                async for item in items:
                    await queue.put(item)
        except Exception as error:
            end = _End(error)
        await queue.put(end)

    async with Supervisor("merge") as pumps:
        for index, source in enumerate(sources):
            pumps.start(str(index), lambda source=source: pump(source))  # type: ignore[misc]
        left = len(sources)
        while left:
            item = await queue.get()
            if not isinstance(item, _End):
                yield item
                continue
            left -= 1
            if item.error is not None:
                raise item.error
