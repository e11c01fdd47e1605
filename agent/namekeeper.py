"""The resolver's state kept equal to what this host knows: View, directory, records.

Whoever changes one of these rings; the state is made once for many rings, and the busier it is the rarer, so
that names of thousands cost an agent a part of its time and not all of it. Law: events wake, state decides.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from agent.context import Context
from agent.etcfiles import resolver_of
from agent.membership import Membership
from agent.nameplan import NamePlan
from agent.record import Local
from aio.mailbox import Bell
from model.status import Endpoint

log = logging.getLogger("flota.agent")

REST = 5.0
"""Of the time that the last state took to make: the pause after it."""
PATIENCE = 1.0
"""Seconds that a container's start waits for its names."""


class NameKeeper:
    def __init__(self, context: Context, membership: Membership) -> None:
        self._context, self._membership = context, membership
        self._plan = NamePlan()
        self._bell = Bell()
        self._stale = False
        self._fresh = asyncio.Event()

    def ring(self) -> None:
        """Something that names are made of may have changed."""
        self._stale = True
        self._fresh.clear()
        self._bell.ring()

    async def run(self) -> None:
        """Until cancelled."""
        self.ring()
        while True:
            await self._bell.wait()
            began = time.perf_counter()
            self._make()
            await asyncio.sleep(REST * (time.perf_counter() - began))

    async def known(self, record: Local) -> None:
        """Wait, not for long, until the resolver knows this container: it may ask as soon as it runs."""
        if not await self._served(record.endpoints):
            log.warning("%s starts before its names are served", record.instance[:12])

    async def introduce(self, endpoints: Sequence[Endpoint]) -> None:
        """As `known`, of endpoints that no instance has."""
        if resolver_of(endpoints):
            self.ring()
        if not await self._served(endpoints):
            log.warning("a step of a build starts before its names are served")

    async def _served(self, endpoints: Sequence[Endpoint]) -> bool:
        if not resolver_of(endpoints):
            return True
        try:
            async with asyncio.timeout(PATIENCE):
                while self._stale:
                    await self._fresh.wait()
            return await self._context.names.served(PATIENCE)
        except TimeoutError:
            return False

    def _make(self) -> None:
        context = self._context
        self._stale = False
        visitors = tuple(context.builders.values())
        state = self._plan.state(
            context.wanted, self._membership.directory, context.host, context.records, visitors
        )
        context.names.update(state, self._plan.step)
        self._fresh.set()
