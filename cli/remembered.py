"""What this host's daemons were last told: `<root>/settings.json`, so that one that is started again by hand,
or by a unit without words, is the same.

Invariant: a command writes once this host is a member, or its daemon answers: one that failed leaves nothing
that the next one inherits.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from aio.durable import write_file
from model.errors import InvalidInput


def in_force(before: Mapping[str, Any], flags: Mapping[str, Any], said: Collection[str]) -> dict[str, Any]:
    """The flags; those that were not said now are as they were said last. One that is said empty is as if it
    had never been said. Pure."""
    kept = {key: value for key, value in before.items() if key not in said}
    return {**{key: _filled(value) for key, value in flags.items()}, **kept}


def _filled(value: Any) -> Any:
    """Of a flag that may be repeated, those that say something."""
    return tuple(filter(None, value)) if isinstance(value, tuple) else value


def understood(found: Any) -> dict[str, Any]:
    """What a file says. In one from before the controller's address had a key of its own, the address may be
    the controller's; one that is a name is. Pure."""
    before = dict(found) if isinstance(found, dict) else {}
    if before.get("address") and not _is_address(before["address"]):
        before.setdefault("controller_address", before.pop("address"))
    return before


def _is_address(text: Any) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def read(root: str) -> dict[str, Any]:
    """Raises InvalidInput for a file that a person has spoilt, say: a daemon that has no other words would
    take it for none, and lose its labels, registries, port."""
    try:
        with open(_path(root)) as file:
            found = json.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidInput(f"{_path(root)}: {why}", hint="Mend it, or remove it and say all again") from error
    if not isinstance(found, dict):
        raise InvalidInput(f"{_path(root)}: that is no object of JSON", hint="Mend it, or remove it")
    return understood(found)


def load(root: str) -> dict[str, Any]:
    """As `read`, but a spoilt file says nothing: to be replaced."""
    try:
        return read(root)
    except InvalidInput:
        return {}


def store(root: str, flags: Mapping[str, Any]) -> None:
    """Once what the flags ask for is done."""
    said = {key: value for key, value in flags.items() if value}
    if said == load(root):
        return
    path = _path(root)
    os.makedirs(root, mode=0o711, exist_ok=True)
    write_file(path, json.dumps(said, indent=1).encode(), 0o644)


@contextlib.contextmanager
def trial(root: str, flags: Mapping[str, Any]) -> Iterator[bool]:
    """For a daemon that has no words but these: they are remembered, unless the block fails. Yields whether
    they are others than before."""
    try:
        with open(_path(root), "rb") as file:
            before = file.read()
    except FileNotFoundError:
        before = b""
    known = load(root)
    store(root, flags)
    try:
        yield load(root) != known
    except BaseException:
        if before:
            write_file(_path(root), before, 0o644)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(_path(root))
        raise


def _path(root: str) -> str:
    return os.path.join(root, "settings.json")
