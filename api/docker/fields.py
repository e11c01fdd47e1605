"""Which fields of Docker's bodies are done, partly done or refused: one table per body. Pure.

Nothing is left out in silence: a field that is known and not done is an error that names it, unless its value
asks for nothing. Unknown fields are ignored, as Docker does. docs/docker-api.md is made from these tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from model.errors import InvalidInput, Problem

State = Literal["mapped", "partly", "refused", "idle"]
"""idle: it means nothing to a Linux host of ours, so that any value is as good."""
NOTHING: tuple[Any, ...] = (None, False, 0, "", [], {})


@dataclass(frozen=True)
class Field:
    name: str
    state: State = "mapped"
    note: str = ""
    """For people: what is done of it, or why it isn't and what to do."""
    asks_nothing: tuple[Any, ...] = ()
    """Values, beside NOTHING, of a refused field that change nothing."""


Table = Sequence[Field]


def refused(name: str, note: str = "", *asks_nothing: Any) -> Field:
    return Field(name, "refused", note, asks_nothing)


def partly(name: str, note: str) -> Field:
    return Field(name, "partly", note)


def idle(name: str, note: str) -> Field:
    return Field(name, "idle", note)


def canonical(raw: Mapping[str, Any], table: Table) -> dict[str, Any]:
    """Fields by the table's spelling (Go's JSON does not mind the case), without those that are null; the
    last of a kind counts."""
    spelling = {field.name.lower(): field.name for field in table}
    return {spelling.get(key.lower(), key): value for key, value in raw.items() if value is not None}


def problems(raw: Mapping[str, Any], table: Table, where: str = "") -> Iterator[Problem]:
    """What is asked for and can't be done."""
    for field in table:
        if field.state != "refused" or field.name not in raw:
            continue
        value = raw[field.name]
        if any(_same(value, nothing) for nothing in (*NOTHING, *field.asks_nothing)):
            continue
        why = f": {field.note}" if field.note else ""
        yield Problem(path=f"{where}{field.name}", message=f"is not supported{why}")


def _same(a: Any, b: Any) -> bool:
    """Of one type, as 0 is not False in JSON."""
    return type(a) is type(b) and a == b


def check(found: Iterator[Problem]) -> None:
    """Raises InvalidInput with all of them."""
    every = tuple(found)
    if every:
        raise InvalidInput.of("this can't be done here", every)
