"""The packet filter's policies kept equal to what this host knows: View, directory, records.

Invariants: `settle` returns with the View's policies in force, so what it assigns is closed before it has an
address; one change is told to `net` at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Callable

from msgspec.structs import replace

from agent.context import Context
from agent.membership import Membership
from agent.policies import Own, own_parties, policies_of
from aio.backoff import jittered
from aio.mailbox import Bell
from model.directory import Directory
from model.errors import FlotaError
from model.view import View
from net.policy import HostPolicies

AGAIN = 5.0
"""Seconds, jittered, until what was refused is told again."""
log = logging.getLogger("flota.agent")


class PolicyKeeper:
    """`changed` is called when `trouble` is another than before."""

    def __init__(self, context: Context, membership: Membership) -> None:
        self._context, self._membership = context, membership
        self._bell = Bell()
        self._turn = asyncio.Lock()
        self._current = HostPolicies()
        self._known: tuple[View, Directory, Own] | None = None
        """Of which `_current` was made: most rings change nothing of it."""
        self._sure = True
        """Whether `net` has `_current`, or is being told it."""
        self._again: asyncio.TimerHandle | None = None
        self.changed: Callable[[], None] = lambda: None
        self.trouble = ""

    def ring(self) -> None:
        """Something that policies are made of may have changed."""
        if self._current.endpoints or self._context.view.policies:
            self._bell.ring()

    def take(self) -> HostPolicies:
        """All policies as they should be now, for a plan that is about to be applied."""
        context, directory = self._context, self._membership.directory
        own = own_parties(context.view, context.records)
        known = self._known
        if known is None or known[0] is not context.view or known[1] is not directory or known[2] != own:
            self._known = context.view, directory, own
            made = policies_of(context.view, directory, context.host, context.records, own)
            self._current = _sharing(made, self._current)
        return self._current

    @contextlib.asynccontextmanager
    async def handing(self) -> AsyncIterator[HostPolicies]:
        """`take` for a plan that is applied within; `settle` waits for that. A plan that was refused may have
        changed nothing: then `settle` tells them to the one that stands."""
        async with self._turn:
            now, self._sure = self.take(), True
            try:
                yield now
            except BaseException:
                self._sure = False
                self._bell.ring()
                raise

    async def settle(self) -> None:
        """What the View says is in force when this returns, or `trouble` says why not; then `net` refuses
        endpoints that should be closed."""
        async with self._turn:
            before = self._current
            now = self.take()
            if not self._sure or self.trouble or (now is not before and now != before):
                await self._police(now)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._bell.wait()
            await self.settle()

    async def _police(self, policies: HostPolicies) -> None:
        trouble, self._sure = "", True
        try:
            await self._context.network.police(policies)
        except FlotaError as error:
            trouble, self._sure = f"policies: {error}", False
            self._try_again()
        except BaseException:  # cancelled: it may have been told or not
            self._sure = False
            raise
        if trouble != self.trouble:
            if trouble:
                log.error("%s", trouble)
            self.trouble = trouble
            self.changed()

    def _try_again(self) -> None:
        """Later, once."""
        if self._again is not None:
            self._again.cancel()
        pause = jittered(AGAIN, random.random())
        self._again = asyncio.get_running_loop().call_later(pause, self._bell.ring)


def _sharing(made: HostPolicies, before: HostPolicies) -> HostPolicies:
    """With the same objects where nothing changed: they need not be compared again."""
    classes = {
        name: {
            key: old if (old := before.classes.get(name, {}).get(key)) == found else found
            for key, found in sets.items()
        }
        for name, sets in made.classes.items()
    }
    return replace(made, classes=classes)
