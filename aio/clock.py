"""Time as an argument: the Clock seam.

`now` is wall time for people, `monotonic` is CLOCK_BOOTTIME for leases and liveness, so that a step of the
wall clock changes no decision and a suspended host wakes up with its leases expired.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Unix seconds."""
        ...

    def monotonic(self) -> float:
        """Seconds since boot, suspension included."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class VirtualClock:
    """Time that stands still until `advance`; sleepers wake in order of their deadlines. Only `step` moves
    the wall clock apart."""

    def __init__(self, start: float = 1_000_000.0) -> None:
        self._now = start
        self._stepped = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []
        self._serial = 0

    def now(self) -> float:
        return self._now + self._stepped

    def monotonic(self) -> float:
        return self._now

    def step(self, seconds: float) -> None:
        """Somebody sets the wall clock; no time passes."""
        self._stepped += seconds

    async def sleep(self, seconds: float) -> None:
        self._serial += 1
        entry = (self._now + seconds, self._serial, asyncio.Event())
        self._sleepers.append(entry)
        try:
            await entry[2].wait()
        finally:
            if entry in self._sleepers:
                self._sleepers.remove(entry)

    async def advance(self, seconds: float) -> None:
        """Let time pass, running whoever wakes, each at its own instant."""
        end = self._now + seconds
        while True:
            await self._settle()
            due = min((s for s in self._sleepers if s[0] <= end), default=None)
            if due is None:
                break
            self._now = max(self._now, due[0])
            self._sleepers.remove(due)
            due[2].set()
        self._now = end
        await self._settle()

    @staticmethod
    async def _settle() -> None:
        for _ in range(20):
            await asyncio.sleep(0)
