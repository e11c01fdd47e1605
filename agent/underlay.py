"""The host's underlay as it changes: its address, MTU and ranges are measured again when the kernel says so,
now and then without that, and soon after a look that failed.

Invariant: the facts that the fleet knows are those of the last look that succeeded; a host that has no way
out for a while keeps the address it had.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from agent import facts
from aio.backoff import delay, jittered
from aio.mailbox import Bell
from model.errors import FlotaError
from model.status import HostFacts
from net.kernel.underlay import UnderlayMonitor

log = logging.getLogger("flota.agent")
GATHER = 0.1
"""Seconds in which a change is complete: one address for another is two messages at least."""
LOOK = 60.0
"""Seconds, jittered, between looks without a bell: routes and names change without one."""
AGAIN = 0.25
"""Seconds until a look that failed is taken again, more and more up to `LOOK`."""


class Underlay:
    """`address` is the one that was asked for, or empty: that of the way to `controller`. `moved` takes facts
    that are others than `known()`. `source` finds the address of the way out, `measure` what it brings with
    it; `every` is as `LOOK`."""

    def __init__(
        self,
        known: Callable[[], HostFacts],
        moved: Callable[[HostFacts], Awaitable[None]],
        *,
        address: str,
        controller: str,
        source: Callable[[str], str] = facts.source_address,
        measure: Callable[[HostFacts, str], HostFacts] = facts.underlay,
        every: float = LOOK,
    ) -> None:
        self._known, self._moved = known, moved
        self._address, self._controller = address, controller
        self._source, self._measure, self._every = source, measure, every

    async def run(self) -> None:
        """Until cancelled."""
        bell = Bell()
        monitor = UnderlayMonitor(bell.ring)
        monitor.start()
        try:
            bell.ring()  # what changed since the agent's start
            failed = 0
            while True:
                pause = delay(failed, first=AGAIN, limit=self._every) if failed else self._every
                await bell.wait(jittered(pause, random.random()))
                await asyncio.sleep(GATHER)
                failed = 0 if await self._look() else failed + 1
        finally:
            monitor.close()

    async def _look(self) -> bool:
        """Whether it could be taken."""
        try:
            address = self._address or await asyncio.to_thread(self._source, self._controller)
            known = self._known()  # now: others may have changed it while the address was looked for
            found = self._measure(known, address)
        except (FlotaError, OSError) as error:
            log.warning("underlay: this host stays known as %s: %s", self._known().address, error)
            return False
        if found == known:
            return True
        log.info("underlay: address %s, MTU %d", found.address, found.mtu)
        try:
            await self._moved(found)
        except FlotaError as error:
            log.error("underlay: %s", error)
        return True
