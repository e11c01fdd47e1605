"""`flota cp`: which end is a container's, and what the copy is called at the other end. Pure.

Docker's rules (moby, pkg/archive/copy.go and its documentation of `docker cp`): onto an existing directory a
thing keeps its name, else it takes the target's; `/.` at the end of a source means what is in it.
"""

from __future__ import annotations

import posixpath
from typing import NamedTuple

from model.errors import InvalidInput


class Argument(NamedTuple):
    """`container` empty: a local path, or `-` for a stream."""

    container: str
    path: str


class End(NamedTuple):
    """One end of a copy, links followed where they are to be."""

    path: str
    exists: bool
    is_dir: bool
    label: str = ""
    """Name of a source's topmost entry, where that is not the last part of its path."""


class Plan(NamedTuple):
    """Unpack below `folder`, with the topmost entry `old` renamed to `new`."""

    folder: str
    old: str = ""
    new: str = ""


def argument(text: str) -> Argument:
    """`CONTAINER:PATH`; what begins with `/` or `.` is local, whatever colons it has."""
    container, colon, path = text.partition(":")
    if text.startswith(("/", ".")) or not colon:
        return Argument("", text)
    return Argument(container, path or "/")


def split(path: str) -> tuple[str, str]:
    """(directory, last part); the last part of `a/.` is `.`."""
    clean = posixpath.normpath(path or ".")
    if path.split("/")[-1] == ".":
        return clean, "."
    return posixpath.dirname(clean) or ".", posixpath.basename(clean) or "/"


def is_asserted(path: str) -> bool:
    """Written as a directory's."""
    return path.endswith("/") or path.split("/")[-1] == "."


def plan(source: End, target: End) -> Plan:
    """Raises InvalidInput in Docker's words."""
    folder, new = split(target.path)
    old = source.label or split(source.path)[1]
    if target.exists and target.is_dir:
        return Plan(target.path)
    if target.exists and source.is_dir:
        raise InvalidInput("cannot copy directory", hint=f"{target.path} is a file")
    if not target.exists and not source.is_dir and is_asserted(target.path):
        raise InvalidInput("no such directory", hint=f"Make {target.path} first")
    return Plan(folder, old, new)


def renamed(name: str, wish: Plan) -> str:
    """A member's name as it is to be; empty for the directory that is unpacked into."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not wish.new or wish.new == ".":
        return "/".join(parts)
    if wish.old in (".", "/"):
        return "/".join((wish.new, *parts))
    if parts and parts[0] == wish.old:
        return "/".join((wish.new, *parts[1:]))
    return "/".join(parts)


def followed(path: str, target: str) -> End:
    """A source that is a link, to be copied as what it leads to (`-L`), under its own name."""
    return End(target, exists=True, is_dir=False, label=split(path)[1])
