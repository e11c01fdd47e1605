"""Looks after the health of this host's containers: a loop for each run that is to be watched.

`agent.probe` says when to look and what a result means; what it comes to is told to `found`, which folds it
into the container's record. Invariants: one probe at a time per container; a loop ends with its run, and
while that is paused or about to stop. Results are kept in memory alone. How many probes start at once is the
runtime's affair; those that hang keep no other from being made.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Sequence

from agent import endpoints, freeze, lifecycle, probing
from agent.context import Context
from agent.probe import OPENING, OPENING_PAUSES, Check, HealthState, Watch, folded, pause, watch_of
from agent.record import Local
from agent.runtime.base import Created
from aio.backoff import delay
from aio.supervisor import Supervisor
from model.errors import FlotaError, NotFound
from model.health import KEPT_RESULTS, HealthLog, ProbeResult
from model.ids import InstanceId
from model.image import ImageConfig
from model.records import Instance
from model.status import Endpoint

Found = Callable[[InstanceId, Created, HealthState | None], None]
"""What is found out about a run: its health, or with None that its ports are waited for no longer."""


class Prober:
    def __init__(self, context: Context, supervisor: Supervisor, found: Found) -> None:
        self._context, self._supervisor, self._found = context, supervisor, found
        self._loops: dict[InstanceId, tuple[Created, str]] = {}
        self._logs: dict[InstanceId, tuple[Created, deque[ProbeResult]]] = {}
        self._serial = itertools.count(1)

    def tend(self, record: Local, want: Instance | None) -> None:
        """See that its loop runs if it should, and no other. Cheap: to be called when either may be new."""
        ident, run = record.instance, record.created if lifecycle.watched(record, want) else None
        before = self._loops.get(ident)
        if before is not None and before[0] != run:
            self._supervisor.cancel(before[1])
            del self._loops[ident]
        if run is None or want is None or ident in self._loops:
            return
        image = self._image(record)
        watch = watch_of(want, image)
        name = f"health/{ident}/{next(self._serial)}"
        if watch.check is not None:
            check = watch.check
            if ident not in self._logs or self._logs[ident][0] != run:
                self._logs[ident] = run, deque(maxlen=KEPT_RESULTS)
            self._supervisor.start(
                name, lambda: self._check(ident, run, check, record, image.shell), restart=True
            )
        elif record.opening:
            self._supervisor.start(name, lambda: self._await_ports(ident, run, watch), restart=True)
        else:
            return
        self._loops[ident] = run, name

    def forget(self, instance: InstanceId) -> None:
        """It is removed."""
        self._logs.pop(instance, None)

    def log(self, record: Local) -> HealthLog:
        state = record.health or HealthState(status="")
        kept = self._logs.get(record.instance)
        results = () if kept is None else tuple(kept[1])
        return HealthLog(status=state.status, failing_streak=state.streak, log=results)

    async def _check(
        self, ident: InstanceId, run: Created, check: Check, began: Local, shell: Sequence[str]
    ) -> None:
        """An older agent's container, of whose health nothing is known, is believed to be well."""
        state, log = began.health or HealthState(status="healthy"), self._logs[ident][1]
        for probed in itertools.count(1):
            record = self._context.records.get(ident)
            if record is None or record.created != run:
                return
            await freeze.over(self._context, ident)
            result = await probing.probe(self._context, record, self._feet(record), check, shell)
            if freeze.is_still(self._context, ident):  # it was made to stand still under the probe
                continue
            log.append(result)
            after = folded(check, state, result, record.started_at)
            if after != state or record.health is None:
                state = after
                self._found(ident, run, state)
            await self._context.clock.sleep(pause(check, state, probed))

    async def _await_ports(self, ident: InstanceId, run: Created, watch: Watch) -> None:
        """Until enough of them take a connection, or it has been long enough."""
        clock, first, limit = self._context.clock, *OPENING_PAUSES
        open_: set[int] = set()
        for tried in itertools.count(1):
            record = self._context.records.get(ident)
            if record is None or record.created != run:
                return
            left = record.started_at + OPENING - clock.now()
            for port in watch.ports:
                if port not in open_ and await self._takes(record, port, left):
                    open_.add(port)
            if len(open_) >= watch.enough or not 0 < left <= OPENING:
                self._found(ident, run, None)
                return
            await clock.sleep(delay(tried, first=first, limit=limit))

    async def _takes(self, record: Local, port: int, patience: float) -> bool:
        try:
            async with asyncio.timeout(max(0.0, patience)):
                (await probing.connect(self._context, record, self._feet(record), port)).close()
        except (OSError, TimeoutError):
            return False
        return True

    def _feet(self, record: Local) -> Sequence[Endpoint]:
        """The endpoints in its network namespace, which may be another container's."""
        want = self._context.wishes.get(record.instance)
        try:
            return (
                record.endpoints
                if want is None
                else endpoints.in_namespace(self._context, want, record.endpoints)
            )
        except FlotaError:  # the other one does not run
            return ()

    def _image(self, record: Local) -> ImageConfig:
        """An image that was removed by force while a container runs has no say any more."""
        try:
            return self._context.images.find(record.image_id).config
        except NotFound:
            return ImageConfig()
