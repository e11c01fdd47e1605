"""Where the folders of a layer's names are, below the current root directory.

A name may lead through links of the same layer, as containerd (fs.RootPath) and umoci (filepath-securejoin)
follow them; none leads out, as the process has given up its root. Invariants: what is answered leads through
no link any more; looking costs boundedly much, whatever names a layer has.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from model.errors import Damaged

MAX_LINKS = 40
"""That a name may lead through: path_resolution(7)."""
MAX_LOOKED = 64 << 20
"""Bytes of the paths looked at: each folder's of an honest layer once."""
_MAX_HELD = 16 << 20


class Folders:
    """`imply` makes a folder that is missing, or where something else is. `strict`: neither where a link
    leads, nor in the place of a file, as the archives of ADD are unpacked."""

    def __init__(self, imply: Callable[[bytes], None], *, strict: bool = False) -> None:
        self._imply = imply
        self._strict = strict
        self._known = {b"/": b"/"}
        self._followed: set[bytes] = set()
        """Links by which the known ones were found."""
        self._held = 0
        self._looked = 0

    def find(self, named: bytes) -> bytes:
        """An absolute and clean name's folder, made if it is missing. Raises Damaged, OSError."""
        known = self._known.get(named)
        if known is not None:
            return known
        above, rest = named, list[bytes]()
        while (start := self._known.get(above)) is None:
            above, _, part = above.rpartition(b"/")
            above = above or b"/"
            rest.append(part)
        found = self._walk(start, rest)
        self._held += len(named) + len(found)
        if self._held > _MAX_HELD:
            self._forget_all()
        self._known[named] = found
        return found

    def forget(self, path: bytes, mode: int) -> None:
        """What was there, of that kind, is there no longer."""
        if stat.S_ISDIR(mode) or path in self._followed:
            self._forget_all()

    def _forget_all(self) -> None:
        self._known = {b"/": b"/"}
        self._followed.clear()
        self._held = 0

    def _walk(self, start: bytes, rest: list[bytes]) -> bytes:
        """`rest`: its parts, the last one first."""
        here, links, linked = start.rstrip(b"/"), 0, len(rest) + 1
        while rest:
            part = rest.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                here = here.rpartition(b"/")[0]
                continue
            path = here + b"/" + part
            self._looked += len(path)
            if self._looked > MAX_LOOKED:
                raise Damaged("layer: more and deeper folders than an honest one has")
            mode = _mode(path)
            if stat.S_ISLNK(mode):
                links += 1
                if links > MAX_LINKS:
                    raise Damaged(f"layer: a folder behind more than {MAX_LINKS} links")
                self._followed.add(path)
                target = os.readlink(path)
                linked = min(linked, len(rest))
                rest += target.split(b"/")[::-1]
                here = b"" if target.startswith(b"/") else here
                continue
            if not stat.S_ISDIR(mode):
                if self._strict and (mode or len(rest) >= linked):
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
                self._imply(path)
            here = path
        return here or b"/"


def _mode(path: bytes) -> int:
    """Its kind among others; 0 of what is not there."""
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return 0
