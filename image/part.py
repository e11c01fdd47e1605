"""A file, or a part of one, as a source of bytes: layers of an archive are read where they lie in it."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from model.errors import Damaged
from model.spec import Struct


class Part(Struct):
    """`size` bytes of `path` from `offset`; size -1: up to its end. `coming`: they are being written."""

    path: str
    offset: int = 0
    size: int = -1
    coming: bool = False


@contextmanager
def opened(part: Part, counts: Iterator[int] | None = None) -> Iterator[BinaryIO]:
    """For reading, from the part's start. Of one that is coming `counts` tell how many bytes are there; it is
    waited for the rest, and raised Damaged when they end before."""
    with open(part.path, "rb") as file:
        size = part.size if part.size >= 0 else max(os.fstat(file.fileno()).st_size - part.offset, 0)
        window = _Window(file.fileno(), part.offset, size)
        if part.coming:
            window = _Coming(file.fileno(), part.offset, size, counts or iter(()))
        with io.BufferedReader(window, 1 << 18) as reader:
            yield reader


class _Window(io.RawIOBase):
    def __init__(self, fd: int, start: int, size: int) -> None:
        self._fd = fd
        self._start = start
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        view = memoryview(buffer)[: max(self._size - self._position, 0)]
        count = os.preadv(self._fd, [view], self._start + self._position) if len(view) else 0
        self._position += count
        return count


class _Coming(_Window):
    def __init__(self, fd: int, start: int, size: int, counts: Iterator[int]) -> None:
        super().__init__(fd, start, size)
        self._whole = size
        self._size = 0
        self._counts = counts

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while self._position >= self._size < self._whole:
            count = next(self._counts, None)
            if count is None:
                raise Damaged(f"the layer ends after {self._size} of {self._whole} bytes")
            self._size = min(count, self._whole)
        return super().readinto(buffer)
