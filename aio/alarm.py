"""One sleeper for many deadlines, on an injected clock: the earliest due key is rung, and only then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from aio.clock import Clock

K = TypeVar("K", bound=Hashable)


class Alarm(Generic[K]):
    """`set` deadlines in the clock's monotonic seconds; `run` calls `ring(key)` when each has come."""

    def __init__(self, clock: Clock, ring: Callable[[K], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._due: dict[K, float] = {}
        self._sooner = asyncio.Event()

    def set(self, key: K, at: float) -> None:
        """Ring `key` at `at`; of two deadlines for one key the sooner stands."""
        if at < self._due.get(key, float("inf")):
            self._due[key] = at
            self._sooner.set()

    def clear(self, key: K) -> None:
        self._due.pop(key, None)

    async def run(self) -> None:
        """For ever; cancel it to stop."""
        while True:
            now = self._clock.monotonic()
            for key in [key for key, at in self._due.items() if at <= now]:
                del self._due[key]
                self._ring(key)
            self._sooner.clear()
            await self._nap(min(self._due.values(), default=None))

    async def _nap(self, until: float | None) -> None:
        """Sleep to `until`, or until a sooner deadline is set."""
        if until is None:
            await self._sooner.wait()
            return
        loop = asyncio.get_running_loop()
        sleep = loop.create_task(self._clock.sleep(max(0.0, until - self._clock.monotonic())))
        sooner = loop.create_task(self._sooner.wait())
        try:
            await asyncio.wait((sleep, sooner), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sleep, sooner):
                task.cancel()
            await asyncio.wait((sleep, sooner))
