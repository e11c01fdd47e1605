"""When a host's network is looked at: soon after a bell, now and then without one, again after a refusal.

Invariant: a burst of our own changes is let pass, so that a look in its midst makes none of them wait.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable, Sequence

from aio.backoff import delay
from aio.mailbox import Bell
from model.errors import CommandFailed, FlotaError
from net.drift import not_repaired
from net.host import Drift

log = logging.getLogger("flota.net")

COMPARE = 25.0
"""Seconds between looks without a bell, give or take a tenth: most sysctls and packet steering tell nobody
when they change, and are set back within 30 s."""
SETTLE = 0.05
"""Seconds from a bell to the look: changes come in bursts."""
SETTLES = 10
"""So often at most: half of the second within which drift is repaired."""

Look = Callable[[bool], Awaitable[tuple[list[Drift], CommandFailed | None]]]
"""Compare and set back, thoroughly or not; what was wrong, and why not all of it could be set back."""


class Watch:
    """`compare`: seconds between looks without a bell. `mutations` counts our own changes."""

    def __init__(
        self,
        bell: Bell,
        look: Look,
        *,
        compare: float,
        mutations: Callable[[], int],
    ) -> None:
        self._bell, self._look = bell, look
        self._compare, self._mutations = compare, mutations
        self.heard: list[Callable[[Drift], None]] = []
        """Told of each drift."""

    async def run(self) -> None:
        """Until cancelled. What can't be repaired is tried again more and more rarely, and with all else that
        a bell is about."""
        time = asyncio.get_running_loop().time
        due, again, refused = time() + self._compare, math.inf, 0
        while True:
            await self._bell.wait(timeout=max(0.0, min(due, again) - time()))
            if thorough := time() >= due:
                due = time() + self._compare * random.uniform(0.9, 1.1)
            await self._settled()
            drifts, failure = await self._looked(thorough)
            if failure is None:
                again, refused = math.inf, 0
            elif not refused or time() >= again:
                refused += 1
                again = time() + delay(refused, first=0.1, limit=self._compare)
                if refused == 1:
                    drifts.append(not_repaired(failure))
            self.tell(drifts)

    async def _looked(self, thorough: bool) -> tuple[list[Drift], FlotaError | None]:
        try:
            return await self._look(thorough)
        except FlotaError as error:
            return [], error

    def tell(self, drifts: Sequence[Drift]) -> None:
        for drift in drifts:
            log.warning("%s: %s", drift.object, drift.action)
            for ring in self.heard:
                ring(drift)

    async def _settled(self) -> None:
        for _ in range(SETTLES):
            before = self._mutations()
            await asyncio.sleep(SETTLE)
            if self._mutations() == before:
                return
