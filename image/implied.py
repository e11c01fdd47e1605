"""What a layer takes of those below it: directories that it implies and does not describe are as there, and
where it hides all at its top, each name there gets a whiteout, as overlayfs looks for no attribute at a top.

A layer is unpacked before those below it may be there; this is done once they are. Invariant: no link is
followed; only directories are touched.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator

from image.extract import HIDE_ALL, hide
from image.lower import LowerLayers, copy_attributes, enter
from model.errors import Damaged, Exhausted

PIECE = 1 << 16


def settle(top: int, implied: Iterable[bytes], lower: LowerLayers) -> None:
    """`implied` are paths below the open directory `top`. One that is none any more is passed over. Raises
    Damaged, Exhausted."""
    for path in implied:
        if path == HIDE_ALL:
            _hide_all(top, lower)
            continue
        below = lower.find(path)
        if below is None:
            continue
        try:
            fd = enter(top, [part for part in path.split(b"/") if part])
        except OSError:  # gone, or a link or a file by now
            continue
        with _told(path):
            try:
                copy_attributes(below, fd)
            finally:
                os.close(fd)


def _hide_all(top: int, lower: LowerLayers) -> None:
    status = os.fstat(top)
    for name in lower.names():
        with _told(name):
            hide(name, within=top)
    os.utime(top, ns=(status.st_atime_ns, status.st_mtime_ns))


@contextlib.contextmanager
def _told(path: bytes) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Exhausted("no space left for the layer") from error
        raise Damaged(f"layer: {path[:200]!r}: {error.strerror}") from error


def written(paths: Iterable[bytes], fd: int) -> None:
    """Into a file, for `read`."""
    with os.fdopen(fd, "wb", closefd=False) as file:
        for path in paths:
            file.write(path + b"\0")


def read(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """As they were written; never all of them in memory, as a stranger's layer says how many there are."""
    with open(path, "rb") as file:
        held = b""
        while piece := file.read(PIECE):
            *whole, held = (held + piece).split(b"\0")
            yield from whole
