"""The files by which an agent and a process that outlives it speak: a state in, a verdict out, a pid file.

Each process has a folder of its own on a tmpfs. The agent writes STATE whole, aside and renamed; the process
reads it when the folder's bell rings and says in SERVED what it made of it. PID is locked while it lives.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence

from aio.processes import open_process
from model.spec import Struct

STATE, SERVED, PID = "state.json", "served.json", "pid"
MOST_STATE = 256 << 20


class Served(Struct):
    """What a process made of a state file. `digest` is of its bytes."""

    digest: str
    refused: str = ""
    """Why the state is not served; the one before it still is."""
    troubles: tuple[str, ...] = ()
    """What else people should know, such as addresses that can't be listened on."""


def digest(data: bytes) -> str:
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


def write_state(folder: str, data: bytes, group: int) -> None:
    """Whole or not at all; readable for the group. Raises OSError."""
    aside = os.path.join(folder, f"{STATE}.new")
    with open(aside, "wb") as file:
        if os.geteuid() == 0:
            os.fchown(file.fileno(), 0, group)
        os.fchmod(file.fileno(), 0o640)
        file.write(data)
    os.replace(aside, os.path.join(folder, STATE))


def refusals(served: Served, what: str) -> Sequence[str]:
    """A verdict in words for people."""
    refused = (f"{what}: the state is refused: {served.refused}",) if served.refused else ()
    return (*refused, *served.troubles)
