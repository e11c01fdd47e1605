"""Bodies of requests: JSON as Go reads it, into the types of a route. Pure.

Go's decoder is lenient: the case of names is nothing to it, null is a field's zero, unknown fields are
ignored. Wrong types are errors here as there. What is known and can't be done is refused (`fields`).
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from api.docker.fields import Table, canonical, check, problems
from model.codec import MAX_INT, MIN_INT, UNREADABLE
from model.errors import InvalidInput, Problem
from model.spec import Struct

D = TypeVar("D", bound="Docker")


class Docker(Struct, rename="pascal"):
    """A value with Docker's names of fields."""


@dataclass(frozen=True)
class Body:
    """What a route takes: `type`, whose fields are those of `table`; `parts` are tables of objects within it,
    by their fields' names, `items` those of lists and maps of objects."""

    type: type[Docker]
    table: Table
    parts: Mapping[str, Table] = field(default_factory=dict)
    items: Mapping[str, Table] = field(default_factory=dict)
    """`NetworkingConfig.EndpointsConfig`: of each value in there."""
    optional: bool = True
    """No body is a body of defaults."""


def decode(data: bytes, body: Body) -> Docker:
    """Raises InvalidInput naming what is wrong, or can't be done."""
    try:
        raw = msgspec.json.decode(data) if data.strip() else {}
    except UNREADABLE as error:
        raise InvalidInput(f"the request body is not valid JSON: {error}") from error
    if raw is None:
        raw = {}
    if not isinstance(raw, dict):
        raise InvalidInput("the request body is no JSON object")
    whole = canonical(raw, body.table)
    found = [*problems(whole, body.table)]
    for path, table in body.parts.items():
        _within(whole, path.split("."), path, table, found)
    for path, table in body.items.items():
        _each(whole, path.split("."), path, table, found)
    found += _beyond(whole, "")
    check(iter(found))
    return convert(as_go(whole, body.type), body.type)


def as_go(raw: Any, hint: Any) -> Any:
    """Plain data as a type can take it: fields by its spelling, those that are null left out, at any depth.
    Of a map a null stays, as it has its key, where the type has no object for it."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    for option in options:
        origin, inner = typing.get_origin(option), typing.get_args(option)
        if isinstance(raw, dict) and isinstance(option, type) and issubclass(option, Docker):
            return _object(raw, option)
        if isinstance(raw, list) and origin is tuple and len(inner) == 2 and inner[1] is Ellipsis:
            return [as_go(item, inner[0]) for item in raw]
        if isinstance(raw, dict) and origin is not None and origin is not tuple and len(inner) == 2:
            of_objects = isinstance(inner[1], type) and issubclass(inner[1], Docker)
            return {
                key: as_go({} if item is None and of_objects else item, inner[1]) for key, item in raw.items()
            }
    return raw


def _object(raw: dict[str, Any], type_: type[Docker]) -> dict[str, Any]:
    hints = _hints(type_)
    spelling = {name.lower(): name for name in hints}
    named = ((spelling.get(key.lower(), key), value) for key, value in raw.items() if value is not None)
    return {name: as_go(value, hints.get(name, Any)) for name, value in named}


@functools.cache
def _hints(type_: type[Docker]) -> dict[str, Any]:
    """By the names that are sent."""
    hints = typing.get_type_hints(type_)
    return {field.encode_name: hints[field.name] for field in msgspec.structs.fields(type_)}


def convert(raw: Any, type_: type[D], where: str = "") -> D:
    """Plain data as a type. Raises InvalidInput."""
    try:
        return msgspec.convert(raw, type_)
    except (msgspec.ValidationError, RecursionError) as error:
        message, _, path = str(error).partition(" - at ")
        at = where + path.strip("`").removeprefix("$").removeprefix(".")
        raise InvalidInput.of(
            "the request body can't be read", (Problem(path=at, message=message),)
        ) from error


def _within(whole: dict[str, Any], way: list[str], path: str, table: Table, found: list[Problem]) -> None:
    """Make the object at `way` canonical in its place, if there is one."""
    at = whole
    for name in way[:-1]:
        inner = at.get(name)
        if not isinstance(inner, dict):
            return
        at = inner
    inner = at.get(way[-1])
    if isinstance(inner, dict):
        at[way[-1]] = canonical(inner, table)
        found += problems(at[way[-1]], table, f"{path}.")


def _each(whole: dict[str, Any], way: list[str], path: str, table: Table, found: list[Problem]) -> None:
    """As `_within`, of each value of the list or map at `way`. Null ones are left for the type to judge."""
    at: Any = whole
    for name in way:
        at = at.get(name) if isinstance(at, dict) else None
    pairs = at.items() if isinstance(at, dict) else enumerate(at) if isinstance(at, list) else ()
    for key, inner in list(pairs):
        if isinstance(inner, dict):
            at[key] = canonical(inner, table)
            found += problems(at[key], table, f"{path}[{key}].")


def _beyond(value: Any, path: str) -> list[Problem]:
    """Numbers that fit into nothing of ours, and texts that are no Unicode (a lone half of a pair)."""
    if isinstance(value, dict):
        return [p for key, inner in value.items() for p in _beyond(inner, f"{path}.{key}" if path else key)]
    if isinstance(value, list):
        return [p for index, inner in enumerate(value) for p in _beyond(inner, f"{path}[{index}]")]
    if isinstance(value, int) and not MIN_INT <= value <= MAX_INT:
        return [Problem(path=path, message=f"must be {MIN_INT} to {MAX_INT}")]
    return []
