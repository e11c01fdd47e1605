"""A file of changes, each written behind the others: what a cache remembers over a restart. Blocking.

    frame: length (4 bytes, big endian), crc32 of the data (4 bytes), the data (MessagePack)

Losing the last changes at a power loss costs a step that is done again, so nothing is synced. Invariant: what
is read is a beginning of what was written; from the first frame that is not whole on, nothing is believed.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from aio.durable import write_file
from image.build.cache import Record
from model.codec import UNREADABLE
from model.spec import Struct

_HEAD = struct.Struct(">II")
MAX_FRAME = 1 << 20


class Put(Struct, tag="put"):
    record: Record


class Gone(Struct, tag="gone"):
    keys: tuple[str, ...]


class Used(Struct, tag="used"):
    key: str
    at: float


class Noted(Struct, tag="noted"):
    guess: str
    content: str


Change = Put | Gone | Used | Noted
_decoder = msgspec.msgpack.Decoder(Change)
_encoder = msgspec.msgpack.Encoder()


class Journal:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.length = 0
        """Changes in the file."""

    def read(self) -> list[Change]:
        """All; what is damaged at the end is cut off."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return []
        found: list[Change] = []
        good = 0
        for change, end in _frames(data):
            found.append(change)
            good = end
        if good < len(data):
            os.truncate(self._path, good)
        self.length = len(found)
        return found

    def append(self, changes: Iterable[Change]) -> None:
        """Raises OSError; then the file is as it was, or what comes next would never be read."""
        frames = [_frame(change) for change in changes]
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            before = os.fstat(fd).st_size
            view = memoryview(b"".join(frames))
            try:
                while view:
                    view = view[os.write(fd, view) :]
            except OSError:
                os.ftruncate(fd, before)
                raise
        finally:
            os.close(fd)
        self.length += len(frames)

    def rewrite(self, changes: Iterable[Change]) -> None:
        """Instead of all that is there. Raises OSError."""
        frames = [_frame(change) for change in changes]
        write_file(self._path, b"".join(frames))
        self.length = len(frames)


def _frame(change: Change) -> bytes:
    data = _encoder.encode(change)
    return _HEAD.pack(len(data), zlib.crc32(data)) + data


def _frames(data: bytes) -> Iterator[tuple[Change, int]]:
    """Each with where it ends."""
    at = 0
    while at + _HEAD.size <= len(data):
        size, crc = _HEAD.unpack_from(data, at)
        piece = data[at + _HEAD.size : at + _HEAD.size + size]
        if size > MAX_FRAME or len(piece) != size or zlib.crc32(piece) != crc:
            return
        try:
            change = _decoder.decode(piece)
        except UNREADABLE:
            return
        at += _HEAD.size + size
        yield change, at
