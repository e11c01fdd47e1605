"""How much of a step's output is told: the beginning as it comes, of what is more the end. Pure.

As BuildKit's limit of 2 MiB, but the last words are never lost: they say why a step failed. Invariant: what
is kept has a bound, whatever the step prints.
"""

from __future__ import annotations

from collections import deque

LIMIT, TAIL = 2 << 20, 64 << 10


class Clip:
    """`take` gives what is to be told now, `rest` what at the end."""

    def __init__(self, limit: int = LIMIT, tail: int = TAIL) -> None:
        self._room = self._limit = limit
        self._tail = tail
        self._kept: deque[bytes] = deque()
        self._held = 0
        self._over = 0

    def take(self, data: bytes) -> bytes:
        told = data[: self._room]
        self._room -= len(told)
        over = data[len(told) :]
        if over:
            self._over += len(over)
            self._kept.append(over[-self._tail :])
            self._held += len(self._kept[-1])
            while self._held - len(self._kept[0]) >= self._tail:
                self._held -= len(self._kept.popleft())
        return told

    def rest(self) -> bytes:
        """Empty, if all was told."""
        if not self._over:
            return b""
        tail = b"".join(self._kept)[-self._tail :]
        lost = self._over - len(tail)
        said = f"[output clipped: the limit of {self._limit} bytes was reached"
        said += f", {lost} bytes are left out]" if lost else "]"
        return b"\n" + said.encode() + b"\n" + tail


class Held:
    """Keeps back what the runtime says of its own failure, among what a process says on stderr, until it is
    known whose words it is: `take` gives what can be told now, `rest` what was kept."""

    MARK, LIMIT = b"runc run failed: ", 8 << 10

    def __init__(self) -> None:
        self._kept = b""

    def take(self, data: bytes) -> bytes:
        data, self._kept = self._kept + data, b""
        at = 0 if data.startswith(self.MARK) else data.find(b"\n" + self.MARK) + 1
        if (at == 0 and not data.startswith(self.MARK)) or len(data) - at > self.LIMIT:
            return data
        self._kept = data[at:]
        return data[:at]

    def rest(self) -> bytes:
        data, self._kept = self._kept, b""
        return data
