"""The kernel's balancing kept equal to what this host knows: View, directory, records.

Invariant: what `net` was told last is `current`; a change of one service tells `net` of that service only.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

from agent.context import Context
from agent.ingress import Inner, inner_addresses
from agent.members import own_members
from agent.membership import Membership
from agent.openports import OpenPorts
from agent.policykeeper import PolicyKeeper
from agent.services import Own, services_of
from aio.backoff import jittered
from aio.mailbox import Bell
from model.directory import Directory
from model.errors import FlotaError
from model.view import View
from net.loadbalance import VirtualService

AGAIN = 5.0
"""Seconds, jittered, between looks at ports that somebody else has."""
log = logging.getLogger("flota.agent")


class ServiceKeeper:
    """`changed` is called when `trouble`, or which ports are taken, is another than before."""

    def __init__(self, context: Context, membership: Membership, ports: OpenPorts) -> None:
        self._context, self._membership, self._ports = context, membership, ports
        self._bell = Bell()
        self._current: dict[str, VirtualService] = {}
        self._wanted: dict[str, VirtualService] = {}
        """As they should be, `_current` without the ports that somebody else has."""
        self._known: tuple[View, Directory, Own, Inner] | None = None
        """Of which `_wanted` was made: most rings change nothing of it."""
        self.changed: Callable[[], None] = lambda: None
        self.trouble = ""
        self.policies: PolicyKeeper | None = None
        """What is said to be followed is followed by these too."""

    def ring(self) -> None:
        """Something that services are made of may have changed."""
        self._bell.ring()

    def take(self) -> dict[str, VirtualService]:
        """All services as they should be now, for a plan that is about to be applied."""
        context, directory = self._context, self._membership.directory
        own = own_members(context.view, context.host, context.records)
        inner = inner_addresses(context.view, context.records)
        known = self._known
        same = known is not None and known[0] is context.view and known[1] is directory
        if known is None or not same or known[2:] != (own, inner):
            self._known = context.view, directory, own, inner
            self._wanted = services_of(context.view, directory, context.host, own, inner)
        elif not self._ports.taken:
            return self._current
        taken = self._ports.taken
        self._current = self._ports.without_taken(self._wanted)
        if self._ports.taken != taken:
            self.changed()
        return self._current

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            pause = jittered(AGAIN, random.random()) if self._ports.taken else None
            await self._bell.wait(timeout=pause)
            heard = self._membership.heard
            before = self._current
            now = self.take()
            changes: dict[str, VirtualService | None] = dict.fromkeys(before.keys() - now.keys())
            if now is not before:
                changes |= {key: service for key, service in now.items() if before.get(key) != service}
            if changes:
                await self._serve(changes, before)
            if self.policies is not None:
                await self.policies.settle()
            if not self.trouble and (self.policies is None or not self.policies.trouble):
                self._membership.follow(heard)

    async def _serve(
        self, changes: dict[str, VirtualService | None], before: dict[str, VirtualService]
    ) -> None:
        trouble = ""
        try:
            await self._context.network.serve(changes)
        except FlotaError as error:
            trouble = f"services: {error}"
            log.error("%s", trouble)
            self._current, self._known = before, None
        if trouble != self.trouble:
            self.trouble = trouble
            self.changed()
