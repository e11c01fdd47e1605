"""What a peer of HTTP/2 may make us do, judged by the heads of its frames before `h2` has them. Pure.

`h2` holds a frame until it is whole before it judges its length, and does whatever a peer asks for by frames
that ask for nothing (SETTINGS, PING, PRIORITY, windows, empty DATA), however many they are. Source: RFC 9113,
4.1 and 10.5. Invariant: no frame is longer than FRAME, no block of headers than MOST_HEADERS, and of frames
that bring nothing no more than MOST_IDLE come between two that do.
"""

from __future__ import annotations

from model.errors import Exhausted

FRAME = 1 << 18
"""Bytes."""
MOST_HEADERS = 1 << 16
"""Bytes of a block of headers, as they are sent and as they are meant."""
MOST_IDLE = 10_000
MOST_RESETS = 1000
"""Streams that a peer may give up, in one connection."""
_HEAD = 9
_DATA, _HEADERS, _RESET, _CONTINUATION = 0, 1, 3, 9


class FrameGuard:
    """`skipped`: bytes that come before the first frame."""

    def __init__(self, skipped: int = 0) -> None:
        self._skipped = skipped
        self._head = bytearray()
        self._block = 0
        self._idle = 0
        self._resets = 0

    def feed(self, data: bytes) -> None:
        """Raises Exhausted."""
        at = 0
        while at < len(data):
            if self._skipped:
                step = min(self._skipped, len(data) - at)
                self._skipped -= step
                at += step
                continue
            part = data[at : at + _HEAD - len(self._head)]
            self._head += part
            at += len(part)
            if len(self._head) == _HEAD:
                length = int.from_bytes(self._head[:3], "big")
                self._judge(length, self._head[3])
                self._skipped = length
                self._head.clear()

    def moved(self) -> None:
        """Something was sent that a peer answers by frames of its own (windows)."""
        self._idle = 0

    def _judge(self, length: int, kind: int) -> None:
        if length > FRAME:
            raise Exhausted(f"a frame of {length} bytes; {FRAME} are the most")
        if kind in (_HEADERS, _CONTINUATION):
            self._block = length + (self._block if kind == _CONTINUATION else 0)
            if self._block > MOST_HEADERS:
                raise Exhausted(f"headers of {self._block} bytes; {MOST_HEADERS} are the most")
        if kind == _RESET:
            self._resets += 1
            if self._resets > MOST_RESETS:
                raise Exhausted("the peer gives up more streams than an honest one")
        if kind == _HEADERS or (kind == _DATA and length):
            self._idle = 0
            return
        self._idle += 1
        if self._idle > MOST_IDLE:
            raise Exhausted(f"more than {MOST_IDLE} frames that bring nothing")
