"""A blob on its way into a file, for those who read it while it comes.

Invariant: `counts` never tells of bytes that may change: once the transfer begins again, they end, and who
has read so far has read for nothing. What was told is unverified until `whole` returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator


class Arrival:
    """Of `size` bytes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.here = 0
        """The first so many bytes are in the file."""
        self._begun_again = 0
        self._verified = False
        self._bell = asyncio.Event()

    def hear(self, here: int) -> None:
        """So many are there now; fewer than before: from the first byte again."""
        self._begun_again += here < self.here
        self.here = here
        self._ring()

    def verified(self) -> None:
        self.here, self._verified = self.size, True
        self._ring()

    async def begun(self) -> None:
        """Until there is something to read."""
        while not self.here and not self._verified:
            await self._bell.wait()

    async def whole(self) -> None:
        """Until all of it is there and verified."""
        while not self._verified:
            await self._bell.wait()

    async def counts(self) -> AsyncIterator[int]:
        """How many bytes may be read, ever more, up to the last; it ends early when the transfer begins
        again."""
        told, attempt = 0, self._begun_again
        while told < self.size and attempt == self._begun_again:
            if self.here > told:
                told = self.here
                yield told
            else:
                await self._bell.wait()

    @property
    def attempt(self) -> int:
        """Changes when the transfer begins again."""
        return self._begun_again

    def _ring(self) -> None:
        self._bell.set()
        self._bell = asyncio.Event()
