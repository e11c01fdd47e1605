"""How much of a disk a tree takes, while others may change it. Blocking.

Invariant: links are not followed; what vanishes meanwhile is not counted, nor what is deeper than `DEPTH`
folders: a stranger may have made them without end.
"""

from __future__ import annotations

import contextlib
import os

DEPTH = 500
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK = 512


def disk_usage(folder: str | os.PathLike[str]) -> int:
    """Bytes of all that is below; 0 for what is no folder."""
    total = 0
    stack: list[tuple[int, list[str]]] = []
    try:
        total += _enter(folder, None, stack)
        while stack:
            fd, folders = stack[-1]
            if not folders:
                os.close(stack.pop()[0])
            elif len(stack) <= DEPTH:
                total += _enter(folders.pop(), fd, stack)
            else:
                folders.clear()
    finally:
        for fd, _ in stack:
            os.close(fd)
    return total


def _enter(name: str | os.PathLike[str], above: int | None, stack: list[tuple[int, list[str]]]) -> int:
    """Bytes of what is in it; its folders are still to be entered."""
    try:
        fd = os.open(name, _FLAGS, dir_fd=above)
    except OSError:  # gone, or another thing by now
        return 0
    folders: list[str] = []
    stack.append((fd, folders))
    total = 0
    with os.scandir(fd) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                total += entry.stat(follow_symlinks=False).st_blocks * _BLOCK
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
    return total
