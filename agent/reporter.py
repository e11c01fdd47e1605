"""What the controller does not know yet: latest status per instance, kept until it says `Reported`.

Bounded by the number of instances; nothing waits for a timer: what is new goes out at once, what becomes new
while a report is under way goes with the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from aio.mailbox import Bell
from model.events import Event
from model.ids import InstanceId
from model.own import OwnContainer
from model.status import HostFacts, HostReport, InstanceStatus
from model.wire import Report

MAX_EVENTS = 1000


class Reporter:
    def __init__(self) -> None:
        self._statuses: dict[InstanceId, InstanceStatus] = {}
        self._forgotten: dict[InstanceId, None] = {}
        self._own: dict[InstanceId, OwnContainer] = {}
        self._own_gone: dict[InstanceId, None] = {}
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._report: HostReport | None = None
        self._facts: HostFacts | None = None
        self._blobs: tuple[str, ...] | None = None
        self._blobs_told = True
        self._sequence = 0
        self._sent: Report | None = None
        self._bell = Bell()
        self.heard: Callable[[Event], None] = lambda event: None
        """Of each event, at once: who listens on this host itself."""

    def status(self, status: InstanceStatus) -> None:
        self._statuses[status.instance] = status
        self._bell.ring()

    def forgotten(self, instance: InstanceId, last: InstanceStatus) -> None:
        """It is gone from this host; its last status goes along once more."""
        self._statuses[instance] = last
        self._forgotten[instance] = None
        self._bell.ring()

    def own(self, container: OwnContainer) -> None:
        """One that was made on this host's own socket."""
        self._own[container.instance.id] = container
        self._bell.ring()

    def own_gone(self, instance: InstanceId) -> None:
        self._own.pop(instance, None)
        self._own_gone[instance] = None
        self._bell.ring()

    def event(self, event: Event) -> None:
        self.heard(event)
        self._events.append(event)
        self._bell.ring()

    def host(self, report: HostReport) -> None:
        self._report = report
        self._bell.ring()

    def facts(self, facts: HostFacts) -> None:
        self._facts = facts
        self._bell.ring()

    def restart(self) -> None:
        """A new session has begun with a Hello that told everything but what was forgotten and happened."""
        if self._sent is not None:
            for instance in self._sent.forgotten:
                self._forgotten.setdefault(instance)
            self._events.extendleft(reversed(self._sent.events))
        self._sent = None
        self._blobs_told = self._blobs is None
        self._bell.ring()

    def blobs(self, blobs: tuple[str, ...]) -> None:
        """All that this host gives to others."""
        if blobs != self._blobs:
            self._blobs, self._blobs_told = blobs, False
            self._bell.ring()

    async def next(self) -> Report:
        """The next report: waits until something is new and the last one was taken."""
        while self._sent is not None or not self._has_news():
            await self._bell.wait()
        self._sequence += 1
        report = Report(
            sequence=self._sequence,
            statuses=tuple(self._statuses.values()),
            forgotten=tuple(self._forgotten),
            report=self._report,
            own=tuple(self._own.values()),
            own_gone=tuple(self._own_gone),
            events=tuple(self._events),
            facts=self._facts,
            blobs=None if self._blobs_told else self._blobs,
        )
        self._blobs_told = True
        self._statuses, self._forgotten, self._report, self._facts = {}, {}, None, None
        self._own, self._own_gone = {}, {}
        self._events.clear()
        self._sent = report
        return report

    def _has_news(self) -> bool:
        told = (
            self._statuses,
            self._forgotten,
            self._own,
            self._own_gone,
            self._events,
            self._report,
            self._facts,
        )
        return any(told) or not self._blobs_told

    def taken(self, sequence: int) -> None:
        """The controller has this report."""
        if self._sent is not None and self._sent.sequence == sequence:
            self._sent = None
            self._bell.ring()
