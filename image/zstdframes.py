"""Where the frames of a zstd stream end. Pure.

The library's streaming reader gives no sign when a stream breaks off inside a frame: a cut archive would look
whole. This follows the frames' own lengths (RFC 8878, sections 3.1.1 and 3.1.2) without decompressing them.
"""

from __future__ import annotations

from collections.abc import Generator

_SKIPPABLE = b"\x2a\x4d\x18"
_Step = Generator[tuple[int, int], bytes, None]


class Frames:
    """Feed it the compressed stream; `whole` says whether it may end here."""

    def __init__(self) -> None:
        self._between = True
        self._held = b""
        self._steps = self._walk()
        self._wanted, self._skip = next(self._steps)

    @property
    def whole(self) -> bool:
        return self._between and not self._skip and not self._held

    def feed(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            if self._skip:
                passed = min(self._skip, len(data) - at)
                self._skip -= passed
                at += passed
                continue
            piece = data[at : at + self._wanted - len(self._held)]
            at += len(piece)
            self._held += piece
            if len(self._held) == self._wanted:
                held, self._held = self._held, b""
                self._wanted, self._skip = self._steps.send(held)

    def _walk(self) -> _Step:
        """Yields (bytes wanted, bytes to pass over before them)."""
        skip = 0
        while True:
            magic = yield 4, skip
            self._between = False
            if magic[0] & 0xF0 == 0x50 and magic[1:] == _SKIPPABLE:
                skip = int.from_bytes((yield 4, 0), "little")
                self._between = True
                continue
            descriptor = (yield 1, 0)[0]
            single = bool(descriptor & 0x20)
            skip = (not single) + (0, 1, 2, 4)[descriptor & 3] + (int(single), 2, 4, 8)[descriptor >> 6]
            last = False
            while not last:
                block = int.from_bytes((yield 3, skip), "little")
                last = bool(block & 1)
                skip = 1 if block >> 1 & 3 == 1 else block >> 3
            skip += 4 if descriptor & 4 else 0
            self._between = True
