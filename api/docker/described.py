"""The tables of docs/docker-api.md, made from those of the code.

python -m api.docker.described docs/docker-api.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from api.docker.bodies import Body
from api.docker.fields import Table
from api.docker.route import Route
from api.docker.table import ROUTES
from api.docker.unserved import WHY
from api.docker.versions import NEWEST, OLDEST, text

FIRST = "## Endpoints that are served"
_WORDS = {"mapped": "done", "partly": "partly", "refused": "refused", "idle": "without meaning"}


def tables() -> str:
    """Markdown, from its first heading to its end."""
    return "\n".join([*_endpoints(), "", *_unserved(), "", *_fields()]) + "\n"


def _endpoints() -> Iterator[str]:
    yield FIRST
    yield ""
    yield "| call | what | query |"
    yield "|---|---|---|"
    for route in ROUTES:
        yield f"| `{route.method} {route.path}` | {route.summary}{_span(route)} | {_query(route)} |"


def _span(route: Route) -> str:
    parts = [f"from {text(route.since)}"] if route.since != OLDEST else []
    parts += [f"to {text(route.until)}"] if route.until != NEWEST else []
    return f" ({', '.join(parts)})" if parts else ""


def _query(route: Route) -> str:
    names = [field.encode_name.replace("_shot", "-shot") for field in msgspec.structs.fields(route.query)]
    return ", ".join(f"`{name}`" for name in names)


def _unserved() -> Iterator[str]:
    yield "## Endpoints that are refused, with why (501)"
    yield ""
    yield "| calls | why |"
    yield "|---|---|"
    for path, why in WHY.items():
        yield f"| `{path}` | {why} |"


def _fields() -> Iterator[str]:
    yield "## Fields of bodies"
    for route in ROUTES:
        if route.body is not None:
            yield from _body(route, route.body)


def _body(route: Route, body: Body) -> Iterator[str]:
    whole = {"": body.table, **body.parts, **{f"{name}[]": table for name, table in body.items.items()}}
    for where, table in whole.items():
        yield ""
        yield f"### `{route.method} {route.path}`{f', {where}' if where else ''}"
        yield ""
        yield from _table(table)


def _table(table: Table) -> Iterator[str]:
    """Those that are done without a word in one line; the others one by one."""
    plain = [f"`{field.name}`" for field in table if field.state == "mapped" and not field.note]
    if plain:
        yield f"Done: {', '.join(plain)}."
    others = [field for field in table if field.state != "mapped" or field.note]
    if others:
        yield ""
        yield "| field | state | |"
        yield "|---|---|---|"
    for field in others:
        note = field.note.replace("|", "\\|")
        yield f"| `{field.name}` | {_WORDS[field.state]} | {note} |"


def renew(page: Path) -> None:
    """Put the tables in place of those that the page has."""
    text_ = page.read_text()
    page.write_text(text_[: text_.index(FIRST)] + tables())


if __name__ == "__main__":
    renew(Path(sys.argv[1]))
