"""A keyed work queue: events put keys, workers take them; a key is never worked on twice at once, nor lost.

The model is the two-set queue of Kubernetes' client-go: `dirty` holds keys that need work, `processing`
those in hand. A key added while in hand is run again afterwards. Size is bounded by the number of keys.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    def __init__(self) -> None:
        self._order: deque[K] = deque()
        self._dirty: set[K] = set()
        self._processing: set[K] = set()
        self._bell = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def add(self, key: K) -> None:
        """Ask for `key` to be worked on soon; cheap and idempotent."""
        if key in self._dirty:
            return
        self._dirty.add(key)
        self._idle.clear()
        if key not in self._processing:
            self._order.append(key)
            self._bell.set()

    async def take(self) -> K:
        """The next key; the taker must call `done` with it."""
        while not self._order:
            self._bell.clear()
            await self._bell.wait()
        key = self._order.popleft()
        self._dirty.discard(key)
        self._processing.add(key)
        return key

    def done(self, key: K) -> None:
        self._processing.discard(key)
        if key in self._dirty:
            self._order.append(key)
            self._bell.set()
        elif not self._dirty and not self._processing:
            self._idle.set()

    async def join(self) -> None:
        """Until nothing is queued or in hand."""
        await self._idle.wait()

    def __len__(self) -> int:
        return len(self._dirty)
