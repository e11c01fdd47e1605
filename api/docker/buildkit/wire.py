"""Protocol Buffers' wire format for the few messages that BuildKit's clients speak. Pure.

Source: protobuf.dev/programming-guides/encoding (proto3). A message is a frozen Struct with a table of its
fields; what the table does not name is skipped, as the format wants it. Invariant: what is decoded is no
larger than its bytes allow, no deeper than MAX_DEPTH and of no more than MAX_FIELDS fields.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

from model.errors import InvalidInput
from model.spec import Struct

MAX_DEPTH = 12
MAX_FIELDS = 200_000
Scalar = Literal["text", "bytes", "int", "flag"]
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MASK = (1 << 64) - 1


class Field(NamedTuple):
    """`kind`: a scalar, or the type of a message within this one. A map's keys are texts."""

    name: str
    kind: Scalar | type[Message]
    shape: Literal["one", "many", "map"] = "one"


class Message(Struct):
    FIELDS: ClassVar[Mapping[int, Field]] = {}
    """By the number that each has on the wire."""


M = TypeVar("M", bound=Message)


# -- encoding -----------------------------------------------------------------------------------------
def encode(message: Message) -> bytes:
    """Fields by their numbers; those that have nothing are left out."""
    made = bytearray()
    for number, field in message.FIELDS.items():
        value = getattr(message, field.name)
        for one in _values(field, value):
            _put(made, number, field.kind, one)
    return bytes(made)


def _values(field: Field, value: Any) -> Iterator[Any]:
    if field.shape == "many":
        yield from value
    elif field.shape == "map":
        for key, one in value.items():
            entry = bytearray()
            _put(entry, 1, "text", key)
            _put(entry, 2, field.kind, one)
            yield bytes(entry)
    elif value:
        yield value


def _put(made: bytearray, number: int, kind: Scalar | type[Message], value: Any) -> None:
    if isinstance(value, int):
        made += varint(number << 3 | _VARINT)
        made += varint(value & _MASK)
        return
    if isinstance(value, str):
        value = value.encode("utf-8", "replace")
    elif isinstance(value, Message):
        value = encode(value)
    made += varint(number << 3 | _BYTES)
    made += varint(len(value))
    made += value


def varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


# -- decoding -----------------------------------------------------------------------------------------
def decode(data: bytes | memoryview, type_: type[M]) -> M:
    """Raises InvalidInput on what is none."""
    try:
        return _Decoder().message(memoryview(data), type_, 0)
    except (IndexError, ValueError, struct.error) as error:
        raise InvalidInput(f"malformed {type_.__name__}: {str(error) or 'it ends too early'}") from None


class _Decoder:
    def __init__(self) -> None:
        self._fields = 0

    def message(self, data: memoryview, type_: type[M], depth: int) -> M:
        if depth > MAX_DEPTH:
            raise ValueError(f"it is deeper than {MAX_DEPTH} messages")
        found: dict[str, Any] = {}
        for number, kind, value in self._split(data):
            field = type_.FIELDS.get(number)
            if field is None:
                continue
            if field.shape == "map":
                key, one = self._entry(value, kind, field, depth)
                found.setdefault(field.name, {})[key] = one
            elif field.shape == "many":
                found.setdefault(field.name, []).append(self._value(value, kind, field.kind, depth))
            else:
                found[field.name] = self._value(value, kind, field.kind, depth)
        return type_(**{name: tuple(v) if isinstance(v, list) else v for name, v in found.items()})

    def _entry(self, data: Any, kind: int, field: Field, depth: int) -> tuple[str, Any]:
        if kind != _BYTES:
            raise ValueError(f"{field.name} is no map")
        key, value = "", _nothing(field.kind)
        for number, inner, one in self._split(data):
            if number == 1:
                key = self._value(one, inner, "text", depth)
            elif number == 2:
                value = self._value(one, inner, field.kind, depth)
        return key, value

    def _value(self, value: Any, kind: int, wanted: Scalar | type[Message], depth: int) -> Any:
        if wanted in ("int", "flag"):
            if kind != _VARINT:
                raise ValueError(f"a number has wire type {kind}")
            signed = value - (1 << 64) if value >> 63 else value
            return bool(value) if wanted == "flag" else signed
        if kind != _BYTES:
            raise ValueError(f"a text or message has wire type {kind}")
        if wanted == "bytes":
            return bytes(value)
        if wanted == "text":
            return bytes(value).decode("utf-8", "replace")
        assert not isinstance(wanted, str)
        return self.message(value, wanted, depth + 1)

    def _split(self, data: memoryview) -> Iterator[tuple[int, int, Any]]:
        """(number, wire type, value) of each field; a number as it stands, else a view."""
        at = 0
        while at < len(data):
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise ValueError(f"it has more than {MAX_FIELDS} fields")
            tag, at = _varint(data, at)
            number, kind = tag >> 3, tag & 7
            if not 0 < number < 1 << 29:
                raise ValueError(f"a field has the number {number}")
            if kind == _VARINT:
                value, at = _varint(data, at)
                yield number, kind, value
                continue
            if kind == _BYTES:
                size, at = _varint(data, at)
            elif kind in (_FIXED64, _FIXED32):
                size = 8 if kind == _FIXED64 else 4
            else:
                raise ValueError(f"wire type {kind}")
            if size > len(data) - at:
                raise ValueError("a field is longer than its message")
            yield number, kind, data[at : at + size]
            at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Its value, and where it ends. Raises IndexError, ValueError."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _MASK, at
        shift += 7
        if shift > 63:
            raise ValueError("a number has more than 64 bits")


def _nothing(kind: Scalar | type[Message]) -> Any:
    if isinstance(kind, str):
        return {"text": "", "bytes": b"", "int": 0, "flag": False}[kind]
    return kind()


def fields(*rows: tuple[Any, ...]) -> Mapping[int, Field]:
    """A table of rows (number, name, kind[, shape])."""
    return {row[0]: Field(*row[1:]) for row in rows}
