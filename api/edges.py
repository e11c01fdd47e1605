"""Where a stream that is passed on untouched may end in words of ours. Pure.

A host that is given up leaves its streams broken off. Their client is told why in an ERROR frame, which it
understands only between two frames, and in a chunked body only between two chunks: a host writes each frame
as a chunk. Invariant: bytes are counted, not kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from api.http1 import ProtocolError, chunk_size
from model.streams import frame_size

HEAD = 8
MAX_LINE = 1 << 12


class Edges(Protocol):
    def feed(self, data: bytes) -> None:
        """What was passed on."""
        ...

    def last(self, frame: bytes) -> bytes:
        """What to send for a last frame; nothing where none can be understood."""
        ...


class NoEdges:
    """A body that has no place for words of ours."""

    def feed(self, data: bytes) -> None:
        return

    def last(self, frame: bytes) -> bytes:
        return b""


class FrameEdges:
    """A bare stream of frames: heads of `head` bytes, in which `size` reads how many more follow."""

    def __init__(self, head: int = HEAD, size: Callable[[bytes], int] = frame_size) -> None:
        self._head_size = head
        self._size = size
        self._head = b""
        self._left = 0

    def feed(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
            else:
                step = self._head_size - len(self._head)
                self._head += data[at : at + step]
                if len(self._head) == self._head_size:
                    self._left, self._head = self._size(self._head), b""
            at += step

    def last(self, frame: bytes) -> bytes:
        return b"" if self._left or self._head else frame


class ChunkEdges:
    """A chunked body of frames."""

    def __init__(self) -> None:
        self._line = b""
        self._left = 0
        """Of a chunk and its end."""
        self._over = False

    def feed(self, data: bytes) -> None:
        at = 0
        while at < len(data) and not self._over:
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                continue
            end = data.find(b"\n", at) + 1 or len(data)
            self._line += data[at:end]
            at = end
            if self._line.endswith(b"\n"):
                self._begin(self._line)
                self._line = b""
            elif len(self._line) > MAX_LINE:
                self._over = True

    def _begin(self, line: bytes) -> None:
        try:
            size = chunk_size(line)
        except ProtocolError:
            size = 0
        self._over = size == 0
        self._left = size + 2

    def last(self, frame: bytes) -> bytes:
        if self._over or self._left or self._line:
            return b""
        return b"%x\r\n%b\r\n0\r\n\r\n" % (len(frame), frame)
