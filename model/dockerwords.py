"""What Docker's clients said of a container and will look for again where flota keeps another form. Pure.

Invariant: these words are shown and decide nothing; each is a value of HostConfig, as JSON, by its field.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from model.errors import Problem
from model.spec import ContainerSpec

FIELDS = frozenset({"Isolation", "LogConfig", "Tmpfs", "VolumeDriver", "VolumesFrom"})
MAX_SAID = 256 << 10
"""Bytes of all of a container's."""


def said_of(values: dict[str, Any]) -> dict[str, str]:
    """As a spec keeps them."""
    return {name: msgspec.json.encode(value).decode() for name, value in values.items()}


def shown(spec: ContainerSpec) -> dict[str, Any]:
    """By field, as they were said."""
    return {name: msgspec.json.decode(text) for name, text in spec.said.items() if name in FIELDS}


def said_problems(spec: ContainerSpec, at: str) -> Iterator[Problem]:
    if sum(len(text) for text in spec.said.values()) > MAX_SAID:
        yield Problem(path=f"{at}.said", message=f"is larger than {MAX_SAID} bytes")
        return
    for name, text in spec.said.items():
        if name not in FIELDS:
            yield Problem(path=f"{at}.said", message=f"{name[:40]!r} is no field that is kept as it was said")
            continue
        try:
            msgspec.json.decode(text)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            yield Problem(path=f"{at}.said.{name}", message="is no JSON")
