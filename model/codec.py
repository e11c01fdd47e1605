"""Types to bytes and back: JSON for people and the API, MessagePack between our processes. Pure.

Two strictnesses, chosen by the caller and not by the type: what a person or a client sends is decoded by
`decode_strict` (an unknown field is an error that names it); what a peer process sends is decoded by
`decode_wire` (unknown fields come from a newer peer and are ignored: wire messages only grow).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec

from model.errors import InvalidInput, Problem

T = TypeVar("T")
MIN_INT, MAX_INT = -(1 << 63), (1 << 63) - 1
"""What fits into MessagePack, SQLite and the kernel's signed numbers."""

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding any bytes may raise: text that is no UTF-8 has an error of its own, deep nesting Python's."""
NO_URL = (ValueError, IndexError)
"""What reading any text as a yarl.URL may raise: `http://[::1]x@`, without a host, is an IndexError."""

_json = msgspec.json.Encoder()
_sorted = msgspec.json.Encoder(order="deterministic")
_msgpack = msgspec.msgpack.Encoder()


def encode_json(value: Any) -> bytes:
    return _json.encode(value)


def encode_sorted(value: Any) -> bytes:
    """JSON in which equal values are equal bytes, whatever the order of their keys."""
    return _sorted.encode(value)


def encode_wire(value: Any) -> bytes:
    return _msgpack.encode(value)


def decode_wire(data: bytes, type_: type[T]) -> T:
    """Raises InvalidInput when the bytes are no `type_`; unknown fields are ignored."""
    try:
        return msgspec.msgpack.decode(data, type=type_)
    except UNREADABLE as error:
        raise InvalidInput(f"malformed message from a peer: {error}") from error


def decode_json(data: bytes | str, type_: type[T], what: str = "JSON") -> T:
    """Tolerant JSON decode, for replies of a possibly newer server and for our own files."""
    try:
        return msgspec.json.decode(data, type=type_)
    except UNREADABLE as error:
        raise InvalidInput(f"{what}: {error}") from error


def decode_strict(data: bytes | str, type_: type[T], what: str = "request body") -> T:
    """Strict JSON decode: wrong types, unknown fields and numbers too large raise InvalidInput with their
    path."""
    try:
        raw = msgspec.json.decode(data)
    except UNREADABLE as error:
        raise InvalidInput(f"{what} is not valid JSON: {error}") from error
    return convert_strict(raw, type_, what)


def convert_strict(raw: Any, type_: type[T], what: str = "input") -> T:
    """As `decode_strict`, from plain data (a YAML file, a query)."""
    try:
        value = msgspec.convert(raw, type_)
    except (msgspec.ValidationError, RecursionError) as error:
        message, _, path = str(error).partition(" - at ")
        problem = Problem(path=path.strip("`").removeprefix("$").removeprefix("."), message=message)
        raise InvalidInput.of(what, (problem,)) from error
    known = _known(value)
    problems = (*_unknown(raw, known, ""), *_beyond(known, ""))
    if problems:
        raise InvalidInput.of(what, problems)
    return value


def _beyond(known: Any, path: str) -> Iterator[Problem]:
    """Integers that none of our encodings has: JSON's have no bounds."""
    if isinstance(known, dict):
        for key, item in known.items():
            yield from _beyond(item, f"{path}.{key}" if path else str(key))
    elif isinstance(known, list):
        for index, item in enumerate(known):
            yield from _beyond(item, f"{path}[{index}]")
    elif isinstance(known, int) and not MIN_INT <= known <= MAX_INT:
        yield Problem(path=path, message=f"must be {MIN_INT} to {MAX_INT}")


def to_plain(value: Any) -> Any:
    """A value as dicts, lists and scalars, with every field present."""
    return _known(value)


def sparing(value: Any) -> Any:
    """As `to_plain`, without what is as by default: so that a peer of before a field understands it."""
    return msgspec.to_builtins(value)


def _known(value: Any) -> Any:
    """As msgspec.to_builtins, but keeps fields that equal their default."""
    if isinstance(value, msgspec.Struct):
        tag_field, tag = value.__struct_config__.tag_field, value.__struct_config__.tag
        out = {} if tag_field is None else {tag_field: tag}
        names = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
        out.update({wire: _known(getattr(value, field)) for wire, field in names})
        return out
    if isinstance(value, dict):
        return {key: _known(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_known(item) for item in value]
    return msgspec.to_builtins(value)


def _unknown(raw: Any, known: Any, path: str) -> list[Problem]:
    if isinstance(raw, dict) and isinstance(known, dict):
        found: list[Problem] = []
        for key, item in raw.items():
            where = f"{path}.{key}" if path else str(key)
            if key in known:
                found += _unknown(item, known[key], where)
            else:
                found.append(Problem(path=where, message="unknown field"))
        return found
    if isinstance(raw, list) and isinstance(known, list) and len(raw) == len(known):
        pairs = enumerate(zip(raw, known, strict=True))
        return [p for i, (a, b) in pairs for p in _unknown(a, b, f"{path}[{i}]")]
    return []
