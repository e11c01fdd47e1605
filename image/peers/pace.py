"""So many bytes a second, for all that share it; a second's worth at once at most."""

from __future__ import annotations

import asyncio


class Pace:
    """`rate` in bytes a second; 0: as fast as it goes."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._free = 0.0
        """When all that was taken so far has been paid for, by the event loop's clock."""

    async def take(self, size: int) -> None:
        """Wait until so many bytes may go; callers go in the order in which they came."""
        if not self._rate:
            return
        now = asyncio.get_running_loop().time()
        self._free = max(self._free, now - 1.0) + size / self._rate
        if self._free > now:
            await asyncio.sleep(self._free - now)
