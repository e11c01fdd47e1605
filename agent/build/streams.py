"""Pieces that a client sends for one ask: bounded, at the pace of whoever takes them.

Invariant: nobody waits for room once the taker has gone; what comes then is thrown away.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")
AHEAD = 8
"""Pieces that are kept for a taker."""


class Stream(Generic[T]):
    """An async iterator over what was put, until `end`."""

    def __init__(self, ahead: int = AHEAD) -> None:
        self._items: deque[T] = deque()
        self._ahead = ahead
        self._over = False
        self._closed = False
        self._changed = asyncio.Condition()

    async def put(self, item: T) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._closed or len(self._items) < self._ahead)
            if not self._closed:
                self._items.append(item)
                self._changed.notify_all()

    async def end(self) -> None:
        """Nothing more comes."""
        async with self._changed:
            self._over = True
            self._changed.notify_all()

    async def close(self) -> None:
        """The taker goes."""
        async with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()

    def __aiter__(self) -> Stream[T]:
        return self

    async def __anext__(self) -> T:
        async with self._changed:
            await self._changed.wait_for(lambda: self._over or self._closed or bool(self._items))
            if not self._items:
                raise StopAsyncIteration
            item = self._items.popleft()
            self._changed.notify_all()
            return item
