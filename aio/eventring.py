"""What happened lately: a ring of events with a cursor, and streams of it.

Invariant: a reader sees every kept event once and in order; one that falls behind is told how many it missed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator

from msgspec.structs import replace

from aio.clock import Clock
from aio.mailbox import Dropped, Feed
from aio.supervisor import Supervisor
from model.events import Event
from model.factrules import MOST_WORDS

KEPT = 4096
FEED = 1024
MOST_SAID = 1 << 14
"""Characters of all attributes of one event."""


def shortened(event: Event) -> Event:
    """What a host tells of, no longer than people read: an enemy's words have no end, and thousands of events
    are kept. Attributes are kept as long as there is room for them."""
    told: dict[str, str] = {}
    room = MOST_SAID
    for name, value in event.attributes.items():
        room -= len(name) + len(value)
        if room < 0:
            break
        told[name] = value
    words = {field: getattr(event, field)[:MOST_WORDS] for field in ("action", "id", "name", "host")}
    return replace(event, attributes=told, **words)


class EventRing:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ring: deque[Event] = deque(maxlen=KEPT)
        self._feeds: set[Feed[Event]] = set()
        self._cursor = 0

    def add(self, event: Event) -> None:
        """Number it and hand it to every reader; an event without a time happened now."""
        self._cursor += 1
        stamped = replace(event, cursor=self._cursor, at=event.at or self._clock.now())
        self._ring.append(stamped)
        for feed in self._feeds:
            feed.put(stamped)

    def about(self, ident: str, limit: int = 20) -> tuple[Event, ...]:
        """The last events of one object, oldest first."""
        found = [event for event in self._ring if event.id == ident]
        return tuple(found[-limit:])

    async def stream(self, since: float | None, until: float | None) -> AsyncIterator[Event]:
        """Kept events from `since` (none without it), then live ones; it ends once `until` is past, also
        where nothing happens any more."""
        feed: Feed[Event] = Feed(FEED)
        end = Supervisor("events")
        past = [e for e in self._ring if since is not None and e.at >= since]
        self._feeds.add(feed)
        try:
            for event in past:
                if until is None or event.at <= until:
                    yield event
            if until is not None:
                left = until - self._clock.now()
                if left <= 0:
                    return
                end.start("end", lambda: self._close_in(left, feed))
            async for item in feed:
                if isinstance(item, Dropped):
                    yield Event(type="fleet", action="dropped", id="", attributes={"count": str(item.count)})
                    continue
                if until is not None and item.at > until:
                    return
                yield item
        finally:
            self._feeds.discard(feed)
            feed.close()
            await end.close()

    async def _close_in(self, seconds: float, feed: Feed[Event]) -> None:
        await self._clock.sleep(seconds)
        feed.close()
