"""Tables, templates and times for people; JSON lines for programs. Pure.

Text from elsewhere is stripped of control bytes here, so that nobody's container name can drive a terminal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from model.errors import InvalidInput
from model.quantity import format_duration
from model.whereabouts import joined

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_ACTION = re.compile(r"\{\{\s*(.*?)\s*\}\}")
_INDEX = re.compile(r"\(?index (\.\S*) ([^\s)]+)\)?(\.\S*)?")
Row = Mapping[str, str]
Column = tuple[str, Callable[[Any], str]]


def clean(text: str) -> str:
    """Without control characters other than newline and tab."""
    return _CONTROL.sub("", text)


def table(columns: Sequence[Column], items: Sequence[Any], *, headings: bool = True) -> str:
    """Left-aligned columns, three spaces apart, as docker prints them."""
    rows = [[clean(cell(item)).replace("\n", " ") for _, cell in columns] for item in items]
    if headings:
        rows.insert(0, [name for name, _ in columns])
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(len(columns))]
    lines = ["   ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "".join(f"{line}\n" for line in lines)


def json_lines(items: Sequence[Any]) -> str:
    return "".join(json.dumps(item, separators=(",", ":")) + "\n" for item in items)


def template(text: str, columns: Sequence[Column], items: Sequence[Any]) -> str:
    """A subset of Go's templates as docker's `--format` uses them: `{{.Name}}` is a column (without spaces,
    any case) or a field of the JSON value, `{{json .}}`, `{{json .a.b}}`, `{{(index .a 0).b}}`, `table …`."""
    headings = text.startswith("table ")
    pattern = text.removeprefix("table ").replace("\\t", "\t").replace("\\n", "\n")
    cells = _cells(columns)
    lines = [_ACTION.sub(partial(_filled, cells, item), pattern) for item in items]
    if headings:
        lines.insert(0, _ACTION.sub(lambda m: m[1].strip(". ").upper(), pattern))
    return "".join(f"{line}\n" for line in lines)


def _cells(columns: Sequence[Column]) -> dict[str, Callable[[Any], str]]:
    """Columns by the names that templates use: without spaces, and docker's short ones (`ID`)."""
    cells = {name.replace(" ", "").lower(): cell for name, cell in columns}
    for name, cell in columns:
        cells.setdefault(name.rpartition(" ")[2].lower(), cell)
    for docker, ours in (("runningfor", "created"), ("createdsince", "created"), ("hostname", "name")):
        if ours in cells:
            cells.setdefault(docker, cells[ours])
    return cells


def _filled(cells: Mapping[str, Callable[[Any], str]], item: Any, match: re.Match[str]) -> str:
    return clean(_evaluate(match[1], cells, item))


def _evaluate(action: str, cells: Mapping[str, Callable[[Any], str]], item: Any) -> str:
    if action.startswith("json "):
        return json.dumps(_field(action[5:].strip(), item), separators=(",", ":"))
    name = action.removeprefix(".").lower()
    if name in cells:
        return cells[name](item)
    value = _field(action, item)
    return value if isinstance(value, str) else json.dumps(value)


def _field(path: str, item: Any) -> Any:
    index = _INDEX.fullmatch(path)
    if index:
        inner, key = _field(index[1], item), index[2].strip('"')
        try:
            value = inner[int(key)] if isinstance(inner, list) else inner[key]
        except (KeyError, IndexError, ValueError, TypeError):
            raise InvalidInput(f"template: {path} has no element {key}") from None
        return _field(index[3], value) if index[3] else value
    if not path.startswith("."):
        raise InvalidInput(f"template: {path[:60]!r} is not supported", hint="Write {{.Field}} or {{json .}}")
    for part in filter(None, path.split(".")):
        if not isinstance(item, Mapping) or _key(item, part) is None:
            raise InvalidInput(f"template: there is no field {part!r}")
        item = item[_key(item, part)]
    return item


def _key(item: Mapping[str, Any], part: str) -> str | None:
    wanted = part.lower().replace("_", "")
    return next((key for key in item if key.lower().replace("_", "") == wanted), None)


def age(then: float, now: float) -> str:
    """`5 minutes ago`; empty for no time."""
    return f"{format_duration(max(0.0, now - then))} ago" if then else ""


def phase_text(status: Mapping[str, Any], now: float) -> str:
    """As docker words it: `Up 5 minutes (Paused)`, `Exited (0) 3 hours ago`."""
    phase = status.get("phase", "assigned")
    if phase in ("running", "stopping"):
        return f"Up {format_duration(max(0.0, now - status.get('started_at', now)))}{_aside(status)}"
    if phase in ("exited", "restarting"):
        code = status.get("exit_code")
        word = "Exited" if phase == "exited" else "Restarting"
        return f"{word} ({'?' if code is None else code}) {age(status.get('finished_at', 0), now)}".rstrip()
    return str(phase).capitalize()


def _aside(status: Mapping[str, Any]) -> str:
    if status.get("paused"):
        return " (Paused)"
    health = status.get("health")
    return f" ({'health: ' if health == 'starting' else ''}{health})" if health else ""


def published_text(ports: Sequence[Mapping[str, Any]]) -> str:
    """`*:8080->80/tcp`, as docker shows services' ports."""
    return ", ".join(f"*:{port['published']}->{target_text(port)}" for port in ports)


def ports_text(ports: Sequence[Mapping[str, Any]]) -> str:
    """`0.0.0.0:8080->80/tcp`."""
    return ", ".join(f"{bound_text(port)}->{target_text(port)}" for port in ports)


def bound_text(port: Mapping[str, Any]) -> str:
    """Where it is open: `0.0.0.0:8080`, `[::1]:8080`."""
    return joined(port.get("host_ip") or "0.0.0.0", port["published"])  # noqa: S104 - docker's "all addresses"


def target_text(port: Mapping[str, Any]) -> str:
    """What it leads to: `80/tcp`."""
    return f"{port['target']}/{port.get('protocol', 'tcp')}"
