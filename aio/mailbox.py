"""Latest-wins mailboxes: backpressure by shape. A slow reader sees the newest per key, no backlog."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Mailbox(Generic[K, V]):
    """Latest value per key, in the order in which keys first became new."""

    def __init__(self) -> None:
        self._values: dict[K, V] = {}
        self._bell = asyncio.Event()

    def put(self, key: K, value: V) -> None:
        self._values[key] = value
        self._bell.set()

    async def take_all(self) -> dict[K, V]:
        """Wait until something is new, then everything that is."""
        await self._bell.wait()
        values, self._values = self._values, {}
        self._bell.clear()
        return values

    def take_now(self) -> dict[K, V]:
        """Everything that is new, which may be nothing; never waits."""
        values, self._values = self._values, {}
        self._bell.clear()
        return values

    def __len__(self) -> int:
        return len(self._values)


class Bell:
    """A flag that wakes one waiter; ringing twice before it looks is once."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        self._event.set()

    async def wait(self, timeout: float | None = None) -> bool:
        """True when rung, False when `timeout` seconds went by."""
        try:
            async with asyncio.timeout(timeout):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


class Dropped(Generic[V]):
    """Marks a gap in a stream: `count` items were dropped because the reader was slow."""

    def __init__(self, count: int) -> None:
        self.count = count


class Feed(Generic[V]):
    """A bounded stream to one reader; when it falls behind, the oldest go and it is told how many."""

    def __init__(self, limit: int) -> None:
        self._items: deque[V] = deque()
        self._limit = limit
        self._dropped = 0
        self._closed = False
        self._bell = asyncio.Event()

    def put(self, item: V) -> None:
        if len(self._items) >= self._limit:
            self._items.popleft()
            self._dropped += 1
        self._items.append(item)
        self._bell.set()

    def close(self) -> None:
        self._closed = True
        self._bell.set()

    def __aiter__(self) -> Feed[V]:
        return self

    async def __anext__(self) -> V | Dropped[V]:
        while not self._items and not self._dropped:
            if self._closed:
                raise StopAsyncIteration
            self._bell.clear()
            await self._bell.wait()
        if self._dropped:
            gap, self._dropped = Dropped[V](self._dropped), 0
            return gap
        return self._items.popleft()
