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

from image.lower import LowerLayers, copy_attributes, enter, hide_below
from model.errors import Damaged, Exhausted

PIECE = 1 << 16


def settle(top: int, implied: Iterable[bytes], lower: LowerLayers) -> None:
    """`implied` are paths below the open directory `top`. One that is none any more is passed over. Raises
    Damaged, Exhausted."""
    with _told(b"/"):
        hide_below(top, lower)
    for path in implied:
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
