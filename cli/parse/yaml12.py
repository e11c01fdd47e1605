"""YAML files of people to plain data, and back: bounded, and without YAML 1.1's surprises. Pure.

The core schema of YAML 1.2.2 (10.3), narrowed: `yes`, `on` and `22:22` are words, numbers whole and decimal.
Refused: aliases and anchors (a few lines of them are gigabytes), tags, doubled keys, several documents.
Where a file has fractions (`floats`), `1.5` is one; elsewhere it is a word, as a version is. Invariant: what
`to_yaml` writes is read, with fractions, as what it was.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

from model.errors import InvalidInput

MOST_BYTES, MOST_DEPTH = 1 << 20, 32
_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"


class _Loader(_BASE):  # type: ignore[misc]
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(None, None, "a key is not a word", key_node.start_mark)
            if key in seen:
                raise yaml.MarkedYAMLError(None, None, f"{key[:40]!r} is said twice", key_node.start_mark)
            seen.add(key)
        found: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return found


for _name, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
):
    _Loader.add_implicit_resolver(f"{_TAG}{_name}", re.compile(f"(?:{_pattern})\\Z"), _first)


class _WithFloats(_Loader):
    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own
        first: list(known) for first, known in _Loader.yaml_implicit_resolvers.items()
    }


_FLOAT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\.[0-9]+(?:[eE][-+][0-9]+)?\Z")
_WithFloats.add_implicit_resolver(f"{_TAG}float", _FLOAT, list("-+0123456789"))


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Quotes whatever any YAML could take for something else than a word."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> Any:
    """Line breaks that YAML 1.1 alone knows come back only where they are escaped."""
    style = '"' if re.search("[\x85\u2028\u2029\ufeff]", text) else None
    return dumper.represent_scalar(f"{_TAG}str", text, style=style)


_Dumper.add_representer(str, _text)


def to_yaml(value: Any) -> str:
    """Plain data as a document, its keys in their order."""
    text: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=100
    )
    return text


def line_of(text: str, path: str) -> int:
    """The line, from 1, where what is at a path such as `spec.ports[0].target` begins; of a field that is not
    there, its parent's. `text` is one that `parse_yaml` took."""
    node: Any = yaml.compose(text, Loader=_Loader)
    line = 1
    for key, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", path):
        mark = None
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == key), None)
            if found is not None:
                mark, node = found[0].start_mark, found[1]
        elif isinstance(node, yaml.SequenceNode) and index and int(index) < len(node.value):
            node = node.value[int(index)]
            mark = node.start_mark
        if mark is None:
            return line
        line = mark.line + 1
    return line


def parse_yaml(name: str, text: str, *, floats: bool = False) -> Any:
    """The one document of `text`. Raises InvalidInput, with line and column."""
    if len(text) > MOST_BYTES:
        raise InvalidInput(f"{name[:80]} is larger than {MOST_BYTES >> 20} MiB")
    loader = _WithFloats if floats else _Loader
    try:
        _check(name, text)
        return yaml.load(text, Loader=loader)  # noqa: S506 - it is a safe loader
    except (yaml.YAMLError, ValueError) as error:
        raise InvalidInput(f"{name[:80]} is no YAML: {_words(error)}") from error


def _check(name: str, text: str) -> None:
    """What would be large or strange once made."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=_Loader):
        problem = ""
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            problem = "anchors and aliases are not taken"
        elif getattr(event, "tag", None):
            problem = "tags are not taken"
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            problem = "one document is taken" if documents > 1 else ""
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            problem = f"it is nested more than {MOST_DEPTH} deep" if depth > MOST_DEPTH else ""
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if problem:
            raise InvalidInput(f"{name[:80]}, line {event.start_mark.line + 1}: {problem}")


def _words(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    said = str(getattr(error, "problem", None) or error).partition("\n")[0][:200]
    return f"line {mark.line + 1}, column {mark.column + 1}: {said}" if mark is not None else said
