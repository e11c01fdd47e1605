"""Framing of attach, exec and logs streams. Pure.

A frame is 8 bytes, `type, 0, 0, 0, length (big endian u32)`, then the payload: Docker Engine API's
multiplexed stream, with more types so that one connection carries all there is to say.

    client → server   STDIN (empty payload: end of input), RESIZE, SIGNAL
    server → client   STDOUT, STDERR (logs, attach, exec), ERROR (an ErrorBody), EXIT (an Exit, the last)
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from model.errors import InvalidInput
from model.spec import Struct

STDIN, STDOUT, STDERR, ERROR, EXIT, RESIZE, SIGNAL = range(7)
PROTOCOL = "flota-stream"
"""Value of the Upgrade header."""
MAX_FRAME = 1 << 20
_HEAD = struct.Struct(">BxxxI")
_SIZE = struct.Struct(">HH")


class Exit(Struct):
    """The end of what was watched: `exit_code` None means it is not known."""

    exit_code: int | None
    oom_killed: bool = False
    message: str = ""


class ExecSpec(Struct):
    """A further process in a running container."""

    args: tuple[str, ...]
    env: Mapping[str, str] = {}
    user: str = ""
    workdir: str = ""
    tty: bool = False
    stdin: bool = False
    privileged: bool = False
    detach: bool = False
    rows: int = 0
    cols: int = 0


def pack(kind: int, payload: bytes) -> bytes:
    return _HEAD.pack(kind, len(payload)) + payload


def frame_size(head: bytes) -> int:
    """Bytes of the payload that follows this head of 8 bytes."""
    size: int = _HEAD.unpack(head)[1]
    return size


def pack_resize(rows: int, cols: int) -> bytes:
    return pack(RESIZE, _SIZE.pack(rows, cols))


def unpack_resize(payload: bytes) -> tuple[int, int]:
    """(rows, columns). Raises InvalidInput."""
    if len(payload) != _SIZE.size:
        raise InvalidInput("malformed resize frame")
    rows, cols = _SIZE.unpack(payload)
    return rows, cols


class Unframer:
    """Bytes in, frames out. Raises InvalidInput on an unknown type or a frame above 1 MiB."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        self._buffer += data
        frames: list[tuple[int, bytes]] = []
        while len(self._buffer) >= _HEAD.size:
            kind, length = _HEAD.unpack_from(self._buffer)
            if kind > SIGNAL or length > MAX_FRAME:
                raise InvalidInput(f"malformed stream: frame of type {kind} with {length} bytes")
            end = _HEAD.size + length
            if len(self._buffer) < end:
                break
            frames.append((kind, bytes(self._buffer[_HEAD.size : end])))
            del self._buffer[:end]
        return frames
