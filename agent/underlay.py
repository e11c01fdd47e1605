"""The host's underlay as it changes: its address, MTU and ranges are measured again when the kernel says so.

Invariant: the facts that the fleet knows are those of the last look; a host that has no way out for a while
keeps the address it had.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from agent import facts
from aio.mailbox import Bell
from model.errors import FlotaError, Unsupported
from model.status import HostFacts
from net.kernel.underlay import UnderlayMonitor

log = logging.getLogger("flota.agent")
GATHER = 0.1
"""Seconds in which a change is complete: one address for another is two messages at least."""


class Underlay:
    """`address` is the one that was asked for, or empty: that of the way to `controller`. `moved` takes facts
    that are others than `known()`."""

    def __init__(
        self,
        known: Callable[[], HostFacts],
        moved: Callable[[HostFacts], Awaitable[None]],
        *,
        address: str,
        controller: str,
    ) -> None:
        self._known, self._moved = known, moved
        self._address, self._controller = address, controller

    async def run(self) -> None:
        """Until cancelled."""
        bell = Bell()
        monitor = UnderlayMonitor(bell.ring)
        monitor.start()
        try:
            bell.ring()  # what changed since the agent's start
            while True:
                await bell.wait()
                await asyncio.sleep(GATHER)
                await self._look()
        finally:
            monitor.close()

    async def _look(self) -> None:
        known = self._known()
        try:
            address = self._address or await asyncio.to_thread(facts.source_address, self._controller)
            found = facts.underlay(known, address)
        except (Unsupported, OSError) as error:
            log.warning("underlay: this host stays known as %s: %s", known.address, error)
            return
        if found == known:
            return
        log.info("underlay: address %s, MTU %d", found.address, found.mtu)
        try:
            await self._moved(found)
        except FlotaError as error:
            log.error("underlay: %s", error)
