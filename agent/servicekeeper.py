"""The kernel's balancing kept equal to what this host knows: View, directory, records.

Invariants: what `net` was told last is `current`, but for services of which it is unsure, which are told
again; a change of one service tells `net` of that service only.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Callable, Iterator, Mapping

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
from model.errors import FlotaError, InvalidInput
from model.view import View
from net.loadbalance import VirtualService

AGAIN = 5.0
"""Seconds, jittered, between looks at ports that somebody else has, and until what was refused is told
again."""
log = logging.getLogger("flota.agent")


class ServiceKeeper:
    """`changed` is called when `trouble`, or which ports are taken, is another than before."""

    def __init__(self, context: Context, membership: Membership, ports: OpenPorts) -> None:
        self._context, self._membership, self._ports = context, membership, ports
        self._bell = Bell()
        self._current: dict[str, VirtualService] = {}
        self._wanted: dict[str, VirtualService] = {}
        """As they should be, `_current` without the ports that somebody else has."""
        self._unsure: set[str] = set()
        """Those that `net` may have otherwise than they are in `_current`."""
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
        own = own_members(context.wanted, context.host, context.records)
        inner = inner_addresses(context.wanted, context.records)
        known = self._known
        same = known is not None and known[0] is context.wanted and known[1] is directory
        if known is None or not same or known[2:] != (own, inner):
            self._known = context.wanted, directory, own, inner
            self._wanted = services_of(context.wanted, directory, context.host, own, inner)
        elif not self._ports.taken:
            return self._current
        taken = self._ports.taken
        self._current = self._ports.without_taken(self._wanted)
        if self._ports.taken != taken:
            self.changed()
        return self._current

    @contextlib.contextmanager
    def handing(self) -> Iterator[dict[str, VirtualService]]:
        """`take` for a plan that is applied within. One that was refused may have changed nothing: then the
        one that stands is told of them."""
        before, now = self._current, self.take()
        try:
            yield now
        except BaseException:
            self._unsure |= before.keys() | now.keys()
            self._bell.ring()
            raise

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            pause = jittered(AGAIN, random.random()) if self._ports.taken or self._unsure else None
            await self._bell.wait(timeout=pause)
            heard = self._membership.heard
            before = self._current
            now = self.take()
            changes: dict[str, VirtualService | None] = dict.fromkeys(before.keys() - now.keys())
            if now is not before:
                changes |= {key: service for key, service in now.items() if before.get(key) != service}
            changes |= {key: now.get(key) for key in self._unsure}
            if changes:
                await self._serve(changes)
            if self.policies is not None:
                # It waits for a plan that is being applied, which brings services too.
                await self.policies.settle()
            if not self._unsure and (self.policies is None or not self.policies.trouble):
                self._membership.follow(heard)

    async def _serve(self, changes: Mapping[str, VirtualService | None]) -> None:
        """One that is refused, as those of a network whose plan was, holds up no other."""
        trouble = ""
        self._unsure |= changes.keys()  # until `net` has said that it has them
        try:
            await self._context.network.serve(changes)
            self._unsure -= changes.keys()
        except InvalidInput:
            trouble = "; ".join(filter(None, [await self._alone(k, changes[k]) for k in sorted(changes)]))
        except FlotaError as error:
            trouble = str(error)
        trouble = trouble and f"services: {trouble}"
        if trouble != self.trouble:
            if trouble:
                log.error("%s", trouble)
            self.trouble = trouble
            self.changed()

    async def _alone(self, key: str, service: VirtualService | None) -> str:
        """Why it is refused; empty if it is not."""
        try:
            await self._context.network.serve({key: service})
        except FlotaError as error:
            return str(error)
        self._unsure.discard(key)
        return ""
