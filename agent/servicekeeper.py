"""The kernel's balancing kept equal to what this host knows: View, directory, records.

Invariant: what `net` was told last is `current`; a change of one service tells `net` of that service only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from agent.context import Context
from agent.membership import Membership
from agent.services import services_of
from aio.mailbox import Bell
from model.errors import FlotaError
from net.loadbalance import VirtualService

log = logging.getLogger("flota.agent")


class ServiceKeeper:
    """`changed` is called when `trouble` is another than before."""

    def __init__(self, context: Context, membership: Membership) -> None:
        self._context, self._membership = context, membership
        self._bell = Bell()
        self._current: dict[str, VirtualService] = {}
        self.changed: Callable[[], None] = lambda: None
        self.trouble = ""

    def ring(self) -> None:
        """Something that services are made of may have changed."""
        self._bell.ring()

    def take(self) -> dict[str, VirtualService]:
        """All services as they should be now, for a plan that is about to be applied."""
        context = self._context
        self._current = services_of(context.view, self._membership.directory, context.host, context.records)
        return self._current

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._bell.wait()
            before = self._current
            now = self.take()
            changes: dict[str, VirtualService | None] = dict.fromkeys(before.keys() - now.keys())
            changes |= {key: service for key, service in now.items() if before.get(key) != service}
            if changes:
                await self._serve(changes, before)

    async def _serve(
        self, changes: dict[str, VirtualService | None], before: dict[str, VirtualService]
    ) -> None:
        trouble = ""
        try:
            await self._context.network.serve(changes)
        except FlotaError as error:
            trouble = f"services: {error}"
            log.error("%s", trouble)
            self._current = before
        if trouble != self.trouble:
            self.trouble = trouble
            self.changed()
