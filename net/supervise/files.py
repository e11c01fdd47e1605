"""The files by which an agent and a process that outlives it speak: a state in, a verdict out, a pid file.

Each process has a folder of its own on a tmpfs. The agent writes STATE whole, aside and renamed; the process
reads it when the folder's bell rings and says in SERVED what it made of it. PID is locked while it lives. A
writer with little new to say may append lines to a STATE that ends with one: they say what changed, and each
counts once its end is there.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from collections.abc import Sequence

from aio.processes import open_process
from model.spec import Struct

STATE, SERVED, PID = "state.json", "served.json", "pid"
MOST_STATE = 256 << 20


class Mark(Struct):
    """How far a state file was written or read: the digest of its first line, and its bytes in all."""

    first: str = ""
    size: int = 0

    def reaches(self, other: Mark) -> bool:
        """Whether all is in it that the other marks."""
        return self.first == other.first and self.size >= other.size


def mark_of(data: bytes | bytearray) -> Mark:
    """A file without any line's end is one line, for it was renamed into place."""
    first = data.find(b"\n") + 1 or len(data)
    return Mark(first=digest(data[:first]), size=data.rfind(b"\n") + 1 or len(data))


class Served(Struct):
    """What a process made of a state file, and how far it has read it."""

    mark: Mark = Mark()
    refused: str = ""
    """Why the state is not served; the one before it still is."""
    troubles: tuple[str, ...] = ()
    """What else people should know, such as addresses that can't be listened on."""


def digest(data: bytes | bytearray) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def read(folder: str, name: str) -> bytes | None:
    """None when there is none, or it can't be read."""
    try:
        with open(os.path.join(folder, name), "rb") as file:
            return file.read(MOST_STATE)
    except OSError:
        return None


class Claim(Struct):
    """Who wrote the pid file last."""

    pid: int
    started: int
    """As `aio.processes.process_started`."""
    version: str

    def words(self) -> bytes:
        return f"{self.pid} {self.started} {self.version}\n".encode()


NOBODY = Claim(pid=0, started=0, version="")


def full_version(version: str) -> str:
    """With the interpreter and the place of the code: one that runs from elsewhere is another."""
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return f"{version}@{digest(f'{sys.executable} {home}'.encode())[:8]}"


def claim_of(folder: str) -> Claim:
    try:
        pid, started, version = (read(folder, PID) or b"").decode().split()
        return Claim(pid=int(pid), started=int(started), version=version)
    except ValueError:
        return NOBODY


def living(folder: str) -> int | None:
    """A pidfd of the process that holds the folder, if it lives."""
    claim = claim_of(folder)
    return open_process(claim.pid, claim.started)


def prepare(folder: str, group: int) -> None:
    """Make the folder, which a process of this group may read and not write. Idempotent."""
    os.makedirs(folder, mode=0o750, exist_ok=True)
    if os.geteuid() == 0:
        os.chown(folder, 0, group)


def write_state(folder: str, data: bytes | bytearray, group: int) -> None:
    """Whole or not at all; readable for the group. Raises OSError."""
    aside = os.path.join(folder, f"{STATE}.new")
    with open(aside, "wb") as file:
        if os.geteuid() == 0:
            os.fchown(file.fileno(), 0, group)
        os.fchmod(file.fileno(), 0o640)
        file.write(data)
    os.replace(aside, os.path.join(folder, STATE))


def append_state(folder: str, line: bytes, size: int) -> bool:
    """A line behind the state that has so many bytes. False when the file is another. Raises OSError."""
    try:
        fd = os.open(os.path.join(folder, STATE), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        if os.fstat(fd).st_size != size:
            return False
        if os.write(fd, line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return True
    finally:
        os.close(fd)


def refusals(served: Served, what: str) -> Sequence[str]:
    """A verdict in words for people."""
    refused = (f"{what}: the state is refused: {served.refused}",) if served.refused else ()
    return (*refused, *served.troubles)
