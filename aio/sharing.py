"""Locks that many share or one has alone.

Invariant: whoever wants it alone waits for those who share it, and not for those who come later; so it is
had, however often it is shared.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from weakref import WeakValueDictionary


class SharedLock:
    def __init__(self) -> None:
        self._door = asyncio.Lock()
        self._sharing = 0
        self._empty = asyncio.Event()
        self._empty.set()

    @contextlib.asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """Beside others who share it."""
        async with self._door:
            self._sharing += 1
            self._empty.clear()
        try:
            yield
        finally:
            self._sharing -= 1
            if not self._sharing:
                self._empty.set()

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """With nobody beside."""
        async with self._door:
            await self._empty.wait()
            yield


class SharedLocks:
    """By name, each as long as somebody has it or waits for it."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, SharedLock] = WeakValueDictionary()

    def of(self, name: str) -> SharedLock:
        return self._locks.setdefault(name, SharedLock())
