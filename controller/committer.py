"""Decide, commit, tell: the one way by which anything is written.

Invariant: decisions that place work are made one after another, each on the newest durable snapshot, so two
of them never give away the same free memory; a Conflict drops the decision and decides again. Who is
cancelled while the store writes keeps the turn until that has ended, and what was written is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from aio.eventring import EventRing
from aio.together import to_its_end
from controller.plan import Plan, to_txn
from controller.snapshot import Cluster
from controller.store.base import Conflict, Store
from model.errors import StaleRevision, Unavailable
from model.records import Revision

log = logging.getLogger("flota.controller")
TRIES = 16

Decide = Callable[[Cluster], Plan]


class Committer:
    def __init__(self, store: Store, events: EventRing) -> None:
        self._store = store
        self._events = events
        self._turn = asyncio.Lock()
        self._epoch = 0

    @property
    def epoch(self) -> int:
        return self._epoch

    async def lead(self) -> None:
        """Take the lead: from here on older controllers' writes are refused."""
        self._epoch = await self._store.lead()

    async def run(self, decide: Decide) -> Plan:
        """Commit what `decide` makes of the newest snapshot; what it raises passes through, nothing written.

        Raises Unavailable when another controller leads now, or the store can't write.
        """
        async with self._turn:
            for _ in range(TRIES):
                plan = decide(self._store.snapshot())
                if plan.empty:
                    return plan
                outcome = await to_its_end(self._commit(plan))
                if not isinstance(outcome, Conflict):
                    return plan
                if outcome.key is None:
                    raise Unavailable(f"another controller has taken over ({outcome})")
                log.info("deciding again: %s", outcome)
        raise StaleRevision("too many writers at once", hint="Try again")

    async def _commit(self, plan: Plan) -> Revision | Conflict:
        outcome = await self._store.commit(to_txn(plan, self._epoch))
        if not isinstance(outcome, Conflict):
            self._tell(plan)
        return outcome

    def _tell(self, plan: Plan) -> None:
        for item in plan.items:
            log.info("%s", item)
        for event in plan.events:
            self._events.add(event)
