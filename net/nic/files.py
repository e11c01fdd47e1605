"""The files of moved links: one journal and one lock per bridge, in a folder on a tmpfs.

Invariant: a journal is replaced whole; who changes a link holds its lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from aio.durable import write_file
from net.nic.state import Journal, decode, encode

JOURNAL, LOCK = ".json", ".lock"


def journals(folder: str) -> tuple[Journal, ...]:
    """All that there are. Raises InvalidInput for one that is damaged."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(JOURNAL))
    except FileNotFoundError:
        return ()
    found = (read(folder, name.removesuffix(JOURNAL)) for name in names)
    return tuple(journal for journal in found if journal is not None)


def read(folder: str, bridge: str) -> Journal | None:
    """None where nothing is known of that bridge; a boot makes all links plain. Raises InvalidInput."""
    try:
        with open(_path(folder, bridge, JOURNAL), "rb") as file:
            journal = decode(file.read())
    except FileNotFoundError:
        return None
    return journal if journal.boot == boot_id() else None


def write(folder: str, journal: Journal) -> None:
    os.makedirs(folder, mode=0o700, exist_ok=True)
    write_file(_path(folder, journal.wish.bridge, JOURNAL), encode(journal))


def forget(folder: str, bridge: str) -> None:
    """Idempotent."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_path(folder, bridge, JOURNAL))


@contextlib.contextmanager
def locked(folder: str, bridge: str) -> Iterator[None]:
    """Waits for whoever holds it. The file stays, for somebody else may be waiting at it."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    fd = os.open(_path(folder, bridge, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def boot_id() -> str:
    """Changes with every boot (random(4))."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def _path(folder: str, bridge: str, suffix: str) -> str:
    return os.path.join(folder, bridge + suffix)
