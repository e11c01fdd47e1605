"""gRPC over HTTP/2: its messages' frames, its status codes, and which errors of ours they are. Pure.

Source: github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md and doc/statuscodes.md. Invariant: a message is refused
by its head, before its bytes are kept, where it is compressed or larger than MAX_MESSAGE.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from urllib.parse import quote, unquote

from model.errors import (
    AlreadyExists,
    DeadlineExceeded,
    Exhausted,
    FlotaError,
    Forbidden,
    InvalidInput,
    NotFound,
    Unauthenticated,
    Unavailable,
    Unsupported,
    WrongState,
)

MAX_MESSAGE = 4 << 20
"""Bytes; what gRPC's implementations take unless told otherwise."""
_HEAD = struct.Struct(">BI")
OK, CANCELLED, UNKNOWN, UNIMPLEMENTED = 0, 1, 2, 12
_CODES: Mapping[int, type[FlotaError]] = {
    3: InvalidInput,
    4: DeadlineExceeded,
    5: NotFound,
    6: AlreadyExists,
    7: Forbidden,
    8: Exhausted,
    9: WrongState,
    12: Unsupported,
    14: Unavailable,
    16: Unauthenticated,
}
_OF = {type_: code for code, type_ in _CODES.items()}


def frame(message: bytes) -> bytes:
    return _HEAD.pack(0, len(message)) + message


class Unframer:
    """Bytes in, messages out; keeps one message at most. Raises InvalidInput, Unsupported."""

    def __init__(self, most: int = MAX_MESSAGE) -> None:
        self._most = most
        self._buffer = bytearray()

    @property
    def between(self) -> bool:
        """Whether the stream is at the end of a message."""
        return not self._buffer

    def feed(self, data: bytes) -> list[bytes]:
        self._buffer += data
        found: list[bytes] = []
        at = 0
        while len(self._buffer) - at >= _HEAD.size:
            compressed, size = _HEAD.unpack_from(self._buffer, at)
            if compressed:
                raise Unsupported("a compressed gRPC message")
            if size > self._most:
                raise InvalidInput(f"a gRPC message has {size} bytes; {self._most} are the most")
            end = at + _HEAD.size + size
            if len(self._buffer) < end:
                break
            found.append(bytes(self._buffer[at + _HEAD.size : end]))
            at = end
        del self._buffer[:at]
        return found


def status_of(error: FlotaError) -> tuple[int, str]:
    """(code, message) as they are told a client."""
    return next((_OF[one] for one in type(error).__mro__ if one in _OF), UNKNOWN), str(error)


def error_of(code: int, message: str, what: str = "") -> FlotaError:
    """What a client answered, as an error of ours; `what` names the call, if that says more."""
    words = " ".join(message.split())[:400] or f"gRPC status {code}"
    type_ = _CODES.get(code, Unavailable if code == CANCELLED else InvalidInput)
    return type_(f"{what}: {words}" if what else words)


def quoted(message: str) -> str:
    """As the header grpc-message has it."""
    return quote(message, safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}~")


def unquoted(text: str) -> str:
    return unquote(text, errors="replace")
