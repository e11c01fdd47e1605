"""Trees deleted, however deep they are: a stranger may have made folders below each other without end.
Blocking.

Each folder is first moved to the tree's top, then emptied there, so that two descriptors and no recursion are
enough. Invariants: nothing is deleted through a link; of what can't be deleted an OSError tells.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
Name = str | bytes | os.PathLike[str]


def deletion(path: Name, folder: int | None = None) -> Iterator[None]:
    """Of a path, from the open directory `folder` if one is given; one step per folder. Yields in between.
    Raises OSError."""
    if not stat.S_ISDIR(os.lstat(path, dir_fd=folder).st_mode):
        os.unlink(path, dir_fd=folder)
        return
    top = os.open(path, _FLAGS, dir_fd=folder)
    try:
        yield from _emptied(top)
    finally:
        os.close(top)
    os.rmdir(path, dir_fd=folder)


def delete(path: Name, folder: int | None = None) -> None:
    """All of it at once. Raises OSError, FileNotFoundError among them."""
    for _ in deletion(path, folder):
        pass


def _emptied(top: int) -> Iterator[None]:
    prefix = f".{os.urandom(12).hex()}-"
    count = 0
    waiting = _folders(top)
    while waiting:
        name = waiting.pop()
        fd = os.open(name, _FLAGS, dir_fd=top)
        try:
            for inner in _folders(fd):
                count += 1
                moved = f"{prefix}{count}"
                os.rename(inner, moved, src_dir_fd=fd, dst_dir_fd=top)
                waiting.append(moved)
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=top)
        yield


def _folders(fd: int) -> list[str]:
    """Those of an open folder; all else in it is deleted."""
    found: list[str] = []
    with os.scandir(fd) as entries:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, folder in names:
        if folder:
            found.append(name)
        else:
            os.unlink(name, dir_fd=fd)
    return found
