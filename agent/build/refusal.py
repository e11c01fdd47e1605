"""Why a step's process could not be started, in words for people, out of what runc says. Pure.

runc's own failures stand in its log as lines of JSON; its exit status is 1 then, as it may be of the process
itself, so the log decides. Source: opencontainers/runc 1.1, utils_linux.go and libcontainer/init_linux.go.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

import msgspec

from model.codec import UNREADABLE
from model.errors import CommandFailed, FlotaError, InvalidInput, NotFound

_MISSING = re.compile(r'exec: "(?P<name>[^"]*)": (stat [^:]*: no such file|executable file not found)')
_DENIED = re.compile(r'exec: "(?P<name>[^"]*)": (stat [^:]*: )?(permission denied|is a directory)')
_FOREIGN = re.compile(r"exec format error")
_NO_CWD = re.compile(r"chdir to cwd \(|mkdir /[^:]*: (not a directory|file exists)")
_LATE = re.compile(rb"exec (?P<name>[^\s:]*): (?P<why>no such file or directory|exec format error)")
"""What the container's init says on stderr when its last step, execve(2), fails."""


class _Line(msgspec.Struct):
    level: str = ""
    msg: str = ""


def complaint(log: bytes) -> str:
    """The last error in runc's log; empty if there is none."""
    said = ""
    for line in log.splitlines():
        try:
            read = msgspec.json.decode(line, type=_Line)
        except UNREADABLE:
            continue
        if read.level in ("error", "fatal"):
            said = read.msg
    return said


def refusal(said: str, args: Sequence[str], workdir: str) -> FlotaError:
    """What to raise for a complaint of runc's."""
    program = args[0] if args else ""
    if found := _MISSING.search(said):
        return _missing(found["name"] or program)
    if found := _DENIED.search(said):
        return CommandFailed(
            f"RUN can't start {found['name']!r}: it is not executable", hint="Give it chmod +x in the image"
        )
    if _FOREIGN.search(said):
        return foreign(program)
    if _NO_CWD.search(said):
        return InvalidInput(f"RUN can't start in {workdir}: that is no folder in the image")
    words = said.removeprefix("runc run failed: ").removeprefix("unable to start container process: ")
    return CommandFailed(f"RUN can't start: {words[:500]}")


def late(last: bytes, args: Sequence[str]) -> FlotaError | None:
    """`last`: the end of what a step said that ended with 1 or 255 at once. Only what the init says of `args`
    counts, not the like of it by a program."""
    found = _LATE.search(last.rstrip().rpartition(b"\n")[2])
    name = found["name"].decode("utf-8", "surrogateescape") if found else ""
    if found is None or not args or posixpath.basename(name) != posixpath.basename(args[0]):
        return None
    if found["why"] == b"exec format error":
        return foreign(args[0])
    return NotFound(
        f"RUN can't start {args[0]!r}: its interpreter or its loader is not in the image",
        hint="Look at its first line (#!), or whether it is linked to libraries that are not there",
    )


def _missing(name: str) -> FlotaError:
    if name == "/bin/sh":
        return NotFound(
            "RUN can't start: the image has no /bin/sh",
            hint='Use the exec form, RUN ["program", "argument"], or another SHELL, or a base that has one',
        )
    return NotFound(f"RUN can't start {name!r}: there is no such program in the image")


def foreign(program: str) -> FlotaError:
    return CommandFailed(
        f"RUN can't start {program!r}: it is made for another architecture than this host's",
        hint="Install qemu-user-static (binfmt) on the host, or build where that architecture is native",
    )
