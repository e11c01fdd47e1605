"""A disk without space: told in words, and a piece of it set aside, with which removal goes on all the same.

Removing an image writes the catalog anew before anything is deleted; on a disk that is wholly full that write
would fail, and nothing could ever be removed. The piece is given up then and laid again when there is room.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from model.errors import Exhausted

FULL = (errno.ENOSPC, errno.EDQUOT)
BALLAST = "ballast"
"""Its file, in the image store's folder."""
PIECE = 4 << 20
"""Bytes: more than any catalog."""
HINT = "Make room: flota image gc --to 80%, flota image prune -a"


@contextlib.contextmanager
def told_when_full(what: str) -> Iterator[None]:
    """An OSError for want of space becomes Exhausted."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise Exhausted(f"no space is left on the disk for {what}", hint=HINT) from error


def reserve(path: Path) -> None:
    """A new file of that size. Raises OSError; then there is none, unless there was one before."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, PIECE)
    except OSError:
        os.unlink(path)
        raise
    finally:
        os.close(fd)


class Ballast:
    """Calls block for a few writes."""

    def __init__(self, path: Path, reserve: Callable[[Path], None] = reserve) -> None:
        self._path = path
        self._reserve = reserve

    def lay(self) -> str:
        """Idempotent. Where there is no room for it now, it is laid another time: why not, or nothing."""
        try:
            self._reserve(self._path)
        except FileExistsError:
            return ""
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def write(self, write: Callable[[], None]) -> None:
        """Do it; on a full disk once more with the piece's room. Raises as `write`."""
        try:
            write()
        except OSError as error:
            if error.errno not in FULL or not self._path.exists():
                raise
            os.unlink(self._path)
            write()
