"""Flags of instructions, `--name=value`: which there are, once or often, and of which kind. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from image.dockerfile.faults import Mistake
from image.dockerfile.mends import nearest
from image.dockerfile.nodes import Node
from model.spec import Struct

Kind = Literal["text", "many", "switch"]
_COPYING: Mapping[str, Kind] = {"chown": "text", "chmod": "text", "link": "switch", "exclude": "many"}
KNOWN: Mapping[str, Mapping[str, Kind]] = {
    "FROM": {"platform": "text"},
    "RUN": {"mount": "many", "network": "text", "security": "text", "device": "many"},
    "COPY": {**_COPYING, "from": "text", "parents": "switch"},
    "ADD": {**_COPYING, "checksum": "text", "keep-git-dir": "switch", "unpack": "switch"},
    "HEALTHCHECK": {
        "interval": "text",
        "timeout": "text",
        "start-period": "text",
        "start-interval": "text",
        "retries": "text",
    },
}
MAX_REPEATED = 128


class Given(Struct):
    """Values, and the offsets of the first character of each."""

    values: Mapping[str, tuple[str, ...]] = {}
    places: Mapping[str, tuple[int, ...]] = {}

    def text(self, name: str) -> str:
        return self.values[name][0] if name in self.values else ""

    def many(self, name: str) -> tuple[str, ...]:
        return self.values.get(name, ())

    def switch(self, name: str) -> bool | None:
        """None: not given."""
        return self.values[name][0] == "true" if name in self.values else None

    def at(self, name: str, index: int = 0) -> int:
        return self.places[name][index]


_NONE = Given()


def given(node: Node) -> Given:
    """Raises Mistake for what the instruction does not take."""
    if not node.flags:
        return _NONE
    known = KNOWN.get(node.name, {})
    values: dict[str, list[str]] = {}
    places: dict[str, list[int]] = {}
    for flag, at in zip(node.flags, node.flags_at, strict=True):
        name, equals, value = flag[2:].partition("=")
        kind = known.get(name)
        if kind is None:
            raise _unknown(node.name, name, at, known)
        if name in values and (kind != "many" or len(values[name]) >= MAX_REPEATED):
            most = f"more than {MAX_REPEATED} times" if kind == "many" else "twice"
            raise Mistake(f"--{name} is given {most}", at, "Keep one of them" if kind != "many" else "")
        values.setdefault(name, []).append(_value(name, equals, value, kind, at))
        places.setdefault(name, []).append(at + len(name) + 3)
    return Given(
        values={name: tuple(found) for name, found in values.items()},
        places={name: tuple(found) for name, found in places.items()},
    )


def _value(name: str, equals: str, value: str, kind: Kind, at: int) -> str:
    if kind == "switch":
        lower = value.lower() if equals else "true"
        if lower not in ("true", "false"):
            raise Mistake(f"--{name}={value[:40]} is neither true nor false", at, f"Write --{name}")
        return lower
    if not equals:
        raise Mistake(f"--{name} needs a value", at, f"Write --{name}=value, without a space")
    return value


def _unknown(instruction: str, name: str, at: int, known: Mapping[str, Kind]) -> Mistake:
    message = f"{instruction} has no flag --{name[:40]}"
    if near := nearest(name.lower(), known):
        return Mistake(message, at, f"Did you mean --{near}?")
    others = [other for other, flags in KNOWN.items() if name in flags]
    if others:
        return Mistake(message, at, f"It is one of {' and '.join(others)}")
    if not known:
        return Mistake(message, at, f"{instruction} takes no flags; behind -- a word may begin with --")
    return Mistake(message, at, f"It takes {', '.join(f'--{flag}' for flag in known)}")
