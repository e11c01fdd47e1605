"""Containers that were made on this host's own socket, in the journal: this host is their authority.

Invariant: each change is decided upon what all before it left; one that could not be written is as if it had
never been asked for, and who asked is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec.structs import replace

from agent.context import Context
from agent.journal import Journal, Write
from agent.wanted import Own
from model.ids import InstanceId
from model.records import Instance

KIND = "own"


class OwnJournal:
    """`changed` is called when there is something new to act upon: once it is durable, or is no more."""

    def __init__(self, context: Context, journal: Journal, changed: Callable[[], None]) -> None:
        self._context = context
        self._journal = journal
        self._changed = changed

    def read(self) -> None:
        """At the agent's start. Raises Damaged."""
        found = self._journal.read(KIND, Instance)
        here = self._context.host  # another than it was, where it has joined another fleet since
        self._context.own = {InstanceId(i): replace(wish, host=here) for i, wish in found.items()}

    def __contains__(self, ident: InstanceId) -> bool:
        return ident in self._context.own

    async def change(self, decide: Callable[[Own], Instance]) -> Instance:
        """What `decide` makes of those that are; it raises to change nothing. Returns once it is durable, and
        goes on also if nobody waits for it any more. Raises Exhausted, Unavailable: nothing was changed."""
        own = self._context.own
        decided = decide(own)
        before = own.get(decided.id)
        if before == decided:
            return decided
        self._set(decided.id, decided)
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        written = self._journal.put(KIND, decided.id, decided)
        written.add_done_callback(lambda done: self._written(done, before, decided, settled))
        await settled
        return decided

    def without(self, ident: InstanceId) -> list[Write]:
        """Nothing of it is left: what the journal is to forget with its record."""
        self._set(ident, None)
        return [(KIND, ident, None)]

    def _written(
        self,
        done: asyncio.Future[None],
        before: Instance | None,
        decided: Instance,
        settled: asyncio.Future[None],
    ) -> None:
        """Whoever asked may have gone; then nobody hears why it failed."""
        error = done.exception()
        if error is not None and self._context.own.get(decided.id) is decided:
            self._set(decided.id, before)
        self._changed()
        if settled.done():
            return
        if error is None:
            settled.set_result(None)
        else:
            settled.set_exception(error)

    def _set(self, ident: InstanceId, instance: Instance | None) -> None:
        own = {known: wish for known, wish in self._context.own.items() if known != ident}
        self._context.own = own if instance is None else {**own, ident: instance}
