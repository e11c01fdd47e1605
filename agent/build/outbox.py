"""What a build has to tell its client and hasn't yet. Pure.

Invariant: a client that reads slowly, or not at all, costs bounded memory: beyond `OUTPUT` bytes the output
of steps is left out and counted, of a movement only the latest word is kept, and whoever sends data waits
for room. What the protocol needs is never left out, and all is told in the order in which it happened.
"""

from __future__ import annotations

from collections import deque

from model.build import FromHost, StepMoved, StepSaid

OUTPUT = 1 << 20
"""Bytes of steps' output that are kept for a slow reader."""
ROOM = 1 << 18
"""Bytes in all at which senders of data wait."""
COST = 64
"""Bytes that a message takes beside its data, about."""


class _Gap:
    """A place where output of a step was left out."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.size = 0


class Outbox:
    def __init__(self, output: int = OUTPUT) -> None:
        self._limit = output
        self._items: deque[FromHost | _Gap | tuple[int, str]] = deque()
        self._moved: dict[tuple[int, str], StepMoved] = {}
        self._gaps: dict[int, _Gap] = {}
        self._output = 0
        self._size = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def full(self) -> bool:
        return self._size >= ROOM

    def put(self, message: FromHost) -> None:
        if isinstance(message, StepSaid):
            self._said(message)
        elif isinstance(message, StepMoved):
            self._movement(message)
        else:
            self._items.append(message)
            self._size += COST + _data(message)

    def take(self) -> FromHost:
        """The next one. Raises IndexError where there is none."""
        item = self._items.popleft()
        if isinstance(item, tuple):
            return self._moved.pop(item)
        if isinstance(item, _Gap):
            del self._gaps[item.step]
            return StepSaid(step=item.step, data=_left_out(item.size), stderr=True)
        if isinstance(item, StepSaid):
            self._output -= COST + len(item.data)
        else:
            self._size -= COST + _data(item)
        return item

    def _said(self, message: StepSaid) -> None:
        gap = self._gaps.get(message.step)
        size = COST + len(message.data)
        if gap is None and self._output + size <= self._limit:
            self._output += size
            self._items.append(message)
            return
        if gap is None:
            gap = self._gaps[message.step] = _Gap(message.step)
            self._items.append(gap)
        gap.size += len(message.data)

    def _movement(self, message: StepMoved) -> None:
        key = (message.step, message.what)
        if key not in self._moved:
            self._items.append(key)
        self._moved[key] = message


def _data(message: FromHost) -> int:
    """Bytes that it carries, where these may be many."""
    data = getattr(message, "data", b"")
    digests = getattr(message, "digests", ())
    return len(data) + sum(map(len, digests))


def _left_out(size: int) -> bytes:
    return f"\n[{size} bytes of output were left out: they came faster than they were read]\n".encode()
