"""Query strings as Docker reads them: a type per route, unknown parameters ignored. Pure.

Booleans are false for nothing, `0`, `no`, `false` and `none` and true for all else (moby, httputils/form.go);
filters come as `{"label": ["a=b"]}` or `{"label": {"a=b": true}}`.
"""

from __future__ import annotations

import functools
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from multidict import MultiMapping

from model.codec import UNREADABLE
from model.errors import InvalidInput
from model.spec import Struct

T = TypeVar("T", bound=Struct)
Filters = Mapping[str, tuple[str, ...]]
_FALSE = frozenset({"", "0", "no", "false", "none"})
_INT = re.compile(r"[+-]?\d{1,18}\Z")
_MOMENT = re.compile(r"-?\d{1,15}(?:\.\d{1,9})?\Z")
MOST_FILTERS = 1 << 16
"""Characters of them all."""


class NoQuery(Struct):
    """The query of a route that reads none."""


class Moment(float):
    """Unix seconds, given as `1700000000.123456789`; 0 stands for none, as in Docker."""


def parse_query(values: MultiMapping[str], type_: type[T]) -> T:
    """The query as a `type_`. Raises InvalidInput for what can't be read, in Docker's words where it has
    any."""
    raw: dict[str, Any] = {}
    for name, hint in _hints(type_).items():
        given = values.getall(name, []) or values.getall(name.replace("_", "-"), [])
        if not given:
            continue
        if typing.get_origin(hint) is tuple:
            raw[name] = tuple(given)
            continue
        raw[name] = _reader(hint)(name, given[0])
    return type_(**raw)


@functools.cache
def _hints(type_: type[Struct]) -> dict[str, Any]:
    """By the names that are sent: `from_` is sent as `from`."""
    hints = typing.get_type_hints(type_)
    return {name: hints[name] for name in type_.__struct_fields__}


def _reader(hint: Any) -> Callable[[str, str], Any]:
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    kind = next(option for option in options if option is not type(None))
    if kind is bool:
        return lambda _, text: truth(text)
    if kind is int:
        return _int
    if kind is Moment:
        return _moment
    if typing.get_origin(kind) is not None:
        return lambda _, text: parse_filters(text)
    return lambda _, text: text


def truth(text: str) -> bool:
    return text.strip().lower() not in _FALSE


def _int(name: str, text: str) -> int:
    if not _INT.match(text):
        raise InvalidInput(f'{name}: parsing "{text[:40]}": invalid syntax')
    return int(text)


def _moment(name: str, text: str) -> Moment:
    if text and not _MOMENT.match(text):
        raise InvalidInput(f'{name}: parsing time "{text[:40]}": write unix seconds')
    return Moment(text or 0)


def parse_filters(text: str) -> Filters:
    """Both forms; an empty one is none. Raises InvalidInput."""
    if not text:
        return {}
    if len(text) > MOST_FILTERS:
        raise InvalidInput("invalid filter: it is too long")
    try:
        raw = msgspec.json.decode(text)
    except UNREADABLE as error:
        raise InvalidInput("invalid filter: it is no JSON") from error
    if not isinstance(raw, dict):
        raise InvalidInput("invalid filter: it is no JSON object")
    return {key: _values(key, given) for key, given in raw.items()}


def _values(key: str, given: Any) -> tuple[str, ...]:
    if isinstance(given, list) and all(isinstance(value, str) for value in given):
        return tuple(given)
    if isinstance(given, dict) and all(isinstance(said, bool) for said in given.values()):
        return tuple(value for value, said in given.items() if said)
    raise InvalidInput(f"invalid filter {key[:40]!r}: its values are no list of texts")


def check_filters(filters: Filters, known: Sequence[str]) -> Filters:
    """As they are. Raises InvalidInput for one that is not known."""
    for key in filters:
        if key not in known:
            raise InvalidInput(f"invalid filter '{key[:40]}'")
    return filters


def one_truth(filters: Filters, key: str, default: bool = False) -> bool:
    """The value of a filter that is a boolean. Raises InvalidInput."""
    values = filters.get(key, ())
    if not values:
        return default
    if len(values) > 1 or values[0].lower() not in ("0", "1", "true", "false", "t", "f"):
        raise InvalidInput(f"invalid filter '{key}={list(values)}'")
    return values[0].lower() in ("1", "true", "t")
