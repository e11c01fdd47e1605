"""Whole files that are there as they were or as they shall be, whatever ends us in between. Blocking.

Written aside, synced, renamed over the old one, and the folder synced too: a rename alone survives a crash of
this process, not a power loss. Invariant: nobody ever reads half of it, nor may read what `mode` forbids him.
"""

from __future__ import annotations

import os


def write_file(path: str | os.PathLike[str], data: bytes, mode: int = 0o600) -> None:
    """Replace `path` by `data`. Raises OSError; then the old file is as it was."""
    target = os.fspath(path)
    folder, name = os.path.split(target)
    aside = os.path.join(folder, f".{name}.new")
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        os.rename(aside, target)
    except BaseException:
        _forget(aside)
        raise
    sync_folder(folder or ".")


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Names made, changed or removed in it survive a power loss from here on."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _forget(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return  # the failure that brought us here is the one to tell of
