"""Releases on a host: the words that its installer is run by, and what its answers mean. Pure.

The installer (`deploy.installer`) comes by standard input: nothing of flota need be there yet.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from model.errors import BY_CODE, FlotaError, Internal, Unavailable
from model.spec import Struct

ROOT = "/opt/flota"
COMMAND = "/usr/local/bin/flota"


class Manifest(Struct):
    """`release.json`, in a bundle and in a release."""

    release: str
    version: str
    target: Mapping[str, str]
    """python, machine, libc."""
    protocol: int
    """Of sessions between controller and agents (model.wire)."""
    oldest: int = 1
    """Of the oldest agents that its controller speaks with."""
    compiled: bool = False
    size: int = 0
    """Bytes on a disk."""


class Installed(Struct):
    """What of flota is on a host."""

    current: str = ""
    """The release that is run by `flota` there; empty: none."""
    previous: str = ""
    """The one before: the way back."""
    releases: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    """Releases that processes run from."""
    present: bool = False
    """The release that was asked for is there, and whole."""
    free: int = 0
    """Bytes."""
    protocols: Mapping[str, int] = {}
    """Of those releases."""


class _Refusal(Struct):
    message: str
    code: str = Internal.code
    hint: str = ""


class _Answer(Installed):
    error: _Refusal | None = None


def facts(release: str = "", *, root: str = ROOT, python: str = "python3") -> tuple[str, ...]:
    """Changes nothing. `python`: the host's own, 3.11 or newer."""
    return _words("facts", root, python, release=release)


def prepare(release: str, *, root: str = ROOT, python: str = "python3") -> tuple[str, ...]:
    """As `facts`, and there is a place to put the bundle to."""
    return _words("prepare", root, python, release=release)


def incoming(release: str, *, root: str = ROOT) -> str:
    """Where a bundle is put, on the host."""
    return f"{root}/incoming/{release}.tar.gz"


def install(release: str, sha256: str, *, root: str = ROOT, python: str = "python3") -> tuple[str, ...]:
    """Unpack what was put there, which is gone then. The current release stays what it is."""
    return _words("install", root, python, archive=incoming(release, root=root), sha256=sha256)


def switch(
    release: str, *, root: str = ROOT, command: str = COMMAND, python: str = "python3"
) -> tuple[str, ...]:
    """It is the current one from now on, for what is started from now on."""
    return _words("switch", root, python, release=release, command=command)


def prune(*, root: str = ROOT, python: str = "python3") -> tuple[str, ...]:
    """Give back the room of releases that are neither the current one nor the one before, nor run."""
    return _words("prune", root, python)


def remove(*, root: str = ROOT, command: str = COMMAND, python: str = "python3") -> tuple[str, ...]:
    """All of it. Refused while something runs from it."""
    return _words("remove", root, python, command=command)


def _words(verb: str, root: str, python: str, **options: str) -> tuple[str, ...]:
    said = [word for key, value in options.items() if value for word in (f"--{key}", value)]
    return (python, "-", verb, "--root", root, *said)


def answer(host: str, code: int, out: bytes, err: bytes) -> Installed:
    """What the installer said. Raises what it refused by, with the host's name."""
    try:
        found = msgspec.json.decode(out.strip().rpartition(b"\n")[2], type=_Answer)
    except msgspec.DecodeError as error:
        said = (err or out).decode(errors="replace").strip().splitlines()[-1:] or [f"exit status {code}"]
        raise Unavailable(f"{host}: the installer did not run: {said[0][:300]}") from error
    if found.error is None:
        return Installed(**{name: getattr(found, name) for name in Installed.__struct_fields__})
    kind: type[FlotaError] = BY_CODE.get(found.error.code, Internal)
    raise kind(f"{host}: {found.error.message[:500]}", hint=found.error.hint[:500])
