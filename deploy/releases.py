"""Releases on a host: the words that its installer is run by, and what its answers mean. Pure.

The installer (`deploy.installer`) comes by standard input: nothing of flota need be there yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from model.codec import UNREADABLE
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


class Pin(Struct):
    """The release that a daemon is started from, and the one before: its way back. Empty: none."""

    now: str = ""
    before: str = ""


class Aim(Struct):
    """Of a run that was cut: where it was going. `upgrade.json` on a host, from first change to end."""

    release: str
    back: bool = False
    """It was a rollback."""
    before: Mapping[str, str] = {}
    """Daemon → what it was started from, before the first attempt."""


class Installed(Struct):
    """What of flota is on a host."""

    current: str = ""
    """The release that is run by `flota` there; empty: none."""
    previous: str = ""
    """The one before."""
    pins: Mapping[str, Pin] = {}
    """By daemon. A host of before there were pins has none: both are started from the current release."""
    aim: Aim | None = None
    releases: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    """Releases that processes run from."""
    present: bool = False
    """The release that was asked for is there, and whole."""
    free: int = 0
    """Bytes."""
    protocols: Mapping[str, int] = {}
    """Of those releases."""

    def pin(self, daemon: str) -> Pin:
        return self.pins.get(daemon) or Pin(now=self.current, before=self.previous)


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
    """Unpack what was put there, which is gone then. Nothing is started from it."""
    return _words("install", root, python, archive=incoming(release, root=root), sha256=sha256)


def switch(
    release: str,
    daemons: Sequence[str],
    *,
    root: str = ROOT,
    command: str = COMMAND,
    python: str = "python3",
) -> tuple[str, ...]:
    """These daemons are started from it from now on; the command goes with the agent."""
    return _words("switch", root, python, release=release, command=command, daemons=",".join(daemons))


def prune(daemons: Sequence[str], *, root: str = ROOT, python: str = "python3") -> tuple[str, ...]:
    """Give back the room of releases that are none of these daemons', now or before, nor run. `daemons`: all
    that the host has."""
    return _words("prune", root, python, daemons=",".join(daemons))


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
    except UNREADABLE as error:
        said = (err or out).decode(errors="replace").strip().splitlines()[-1:] or [f"exit status {code}"]
        raise Unavailable(f"{host}: the installer did not run: {said[0][:300]}") from error
    if found.error is None:
        return Installed(**{name: getattr(found, name) for name in Installed.__struct_fields__})
    kind: type[FlotaError] = BY_CODE.get(found.error.code, Internal)
    raise kind(f"{host}: {found.error.message[:500]}", hint=found.error.hint[:500])
