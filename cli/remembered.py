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
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import click

from aio.durable import write_file
from model.errors import InvalidInput, Problem

SAID_BY_ZERO = ("registry_replicas",)
"""Of which 0 is another than what holds where nothing was said."""


def in_force(before: Mapping[str, Any], flags: Mapping[str, Any], said: Collection[str]) -> dict[str, Any]:
    """The flags; those that were not said now are as they were said last. One that is said empty is as if it
    had never been said. Pure."""
    kept = {key: value for key, value in before.items() if key not in said}
    return {**{key: _filled(value) for key, value in flags.items()}, **kept}


def check(found: Mapping[str, Any], params: Iterable[click.Parameter], path: str) -> None:
    """Raises InvalidInput, with the keys, for what the options of a command could not have said: another
    type, a number out of range. Keys of other commands and releases are none of its business. Pure."""
    problems = []
    for param in params:
        name = param.name or ""
        if name in found and (fault := _fault(found[name], param)):
            problems.append(Problem(path=name, message=fault))
    if problems:
        words = "; ".join(map(str, problems))
        hint = "Mend it, or remove it and say all again"
        raise InvalidInput(f"{path}: {words}", hint=hint, problems=tuple(problems))


def _fault(value: Any, param: click.Parameter) -> str:
    if param.multiple:
        good = isinstance(value, list) and all(isinstance(one, str) for one in value)
        return "" if good else f"{json.dumps(value)[:80]} is no list of texts"
    kind, name = _kind(param.type)
    # JSON's true is no number, though Python's is
    if isinstance(value, bool) is not (kind is bool) or not isinstance(value, kind):
        return f"{json.dumps(value)[:80]} is no {name}"
    try:
        param.type.convert(value, param, None)
    except click.BadParameter as error:
        return error.message
    return ""


def _kind(type_: Any) -> tuple[type | tuple[type, ...], str]:
    if isinstance(type_, click.types.BoolParamType):
        return bool, "true or false"
    if isinstance(type_, click.types.FloatParamType):
        return (int, float), "number"
    return (int, "whole number") if isinstance(type_, click.types.IntParamType) else (str, "text")


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


def read(root: str, params: Iterable[click.Parameter] = ()) -> dict[str, Any]:
    """`params`: the options that it is for. Raises InvalidInput for a file that a person has spoilt, say: a
    daemon that has no other words would take it for none, and lose its labels, registries, port."""
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
    settings = understood(found)
    check(settings, params, _path(root))
    return settings


def load(root: str) -> dict[str, Any]:
    """As `read`, but a spoilt file says nothing: to be replaced."""
    try:
        return read(root)
    except InvalidInput:
        return {}


def store(root: str, flags: Mapping[str, Any]) -> None:
    """Once what the flags ask for is done."""
    said = {key: value for key, value in flags.items() if value or key in SAID_BY_ZERO}
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
