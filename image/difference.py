"""What a container's tree has that its image has not: Docker's A, C and D.

The image is a stack of layer directories as overlayfs shows it. Of an overlay only the upper directory is
walked, and each of its entries looked up below: the image's size does not matter. Where a driver keeps a
whole copy, both trees are walked together. Invariants: what is the same in kind, mode, owner, size, time and
attributes is no change, whoever wrote it; a directory whose content changed is one; a parent is told before
what is in it. As in Docker's list a directory's time alone is no change; in a layer it is.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from image.tarwriter import xattr_key
from image.walk import MAX_DEPTH, Found, look, open_file, open_folder, refuse_references, shown, xattr
from model.errors import Unsupported

_OPAQUE = "trusted.overlay.opaque"


class _Entry(NamedTuple):
    status: os.stat_result
    folder: int
    name: bytes


class Level:
    """One directory as the stack shows it: open directories, the topmost first."""

    def __init__(self, fds: Sequence[int]) -> None:
        self._fds = list(fds)

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)

    def find(self, name: bytes) -> _Entry | None:
        for fd in self._fds:
            status = look(fd, name)
            if status is not None:
                return None if _is_whiteout(status) else _Entry(status, fd, name)
        return None

    def enter(self, name: bytes) -> Level | None:
        """The directory of that name; None when the stack shows none."""
        fds: list[int] = []
        for folder in self._fds:
            status = look(folder, name)
            if status is None:
                continue
            fd = open_folder(folder, name) if stat.S_ISDIR(status.st_mode) else None
            if fd is None:
                break
            fds.append(fd)
            if xattr(fd, _OPAQUE) == b"y":
                break
        return Level(fds) if fds else None

    def names(self) -> set[bytes]:
        found: set[bytes] = set()
        hidden: set[bytes] = set()
        for fd in self._fds:
            for name in map(os.fsencode, os.listdir(fd)):
                status = look(fd, name)
                if name in found or name in hidden or status is None:
                    continue
                (hidden if _is_whiteout(status) else found).add(name)
        return found


class Difference:
    """`layers` are open directories, top first, which stay open. `upper`: `top` is an overlay's upper
    directory; otherwise it is the whole tree. `times`: of directories count too."""

    def __init__(self, layers: Sequence[int], *, upper: bool, times: bool) -> None:
        self._layers = layers
        self._upper = upper
        self._times = times
        self._pending: list[Found] = []

    def run(self, top: int) -> Iterator[Found]:
        """Raises Unsupported, OSError."""
        below = Level([os.dup(fd) for fd in self._layers])
        try:
            yield from self._folder(top, b"", below, 0)
        finally:
            below.close()

    def _folder(self, here: int, path: bytes, below: Level | None, depth: int) -> Iterator[Found]:
        if depth > MAX_DEPTH:
            raise Unsupported(f"{shown(path)} is deeper than {MAX_DEPTH} folders")
        if self._upper:
            refuse_references(here, path)
        names = {os.fsencode(name) for name in os.listdir(here)}
        whole = not self._upper or xattr(here, _OPAQUE) == b"y"
        gone = below.names() - names if below is not None and whole else set()
        for name in sorted(names | gone):
            where = path + b"/" + name if path else name
            entry = below.find(name) if below is not None else None
            status = look(here, name) if name in names else None
            if status is None or (self._upper and _is_whiteout(status)):
                if entry is not None:
                    yield from self._told(Found("D", where, here, name, entry.status))
                continue
            found = Found("A" if entry is None else "C", where, here, name, status)
            if not stat.S_ISDIR(status.st_mode):
                if entry is None or self._linked(status, entry) or not same(found, entry, times=True):
                    yield from self._told(found)
                continue
            yield from self._inner(found, entry, below, depth)

    def _linked(self, status: os.stat_result, entry: _Entry) -> bool:
        """Whether a file of a whole tree may have got a new name, which only a layer that has both can tell.
        In an upper directory it would be there for it."""
        return self._times and not self._upper and 1 < status.st_nlink != entry.status.st_nlink

    def _inner(self, found: Found, entry: _Entry | None, below: Level | None, depth: int) -> Iterator[Found]:
        """A directory and what is in it."""
        fd = open_folder(found.folder, found.name)
        if fd is None:
            return
        was = below.enter(found.name) if below is not None and entry is not None else None
        found = found._replace(fd=fd)
        count = len(self._pending)
        try:
            if entry is None or not same(found, entry, times=self._times):
                yield from self._told(found)
            else:
                self._pending.append(found)
            yield from self._folder(fd, found.path, was, depth + 1)
        finally:
            del self._pending[count:]
            os.close(fd)
            if was is not None:
                was.close()

    def _told(self, found: Found) -> Iterator[Found]:
        """The parents that were the same until now, then the change."""
        yield from self._pending
        self._pending.clear()
        yield found


def same(found: Found, entry: _Entry, *, times: bool) -> bool:
    """By all but content, which differs where size and times are the same only by somebody's will."""
    new, old = found.status, entry.status
    if (new.st_mode, new.st_uid, new.st_gid) != (old.st_mode, old.st_uid, old.st_gid):
        return False
    if times and new.st_mtime_ns != old.st_mtime_ns:
        return False
    kind = stat.S_IFMT(new.st_mode)
    if kind == stat.S_IFLNK:
        return os.readlink(found.name, dir_fd=found.folder) == os.readlink(entry.name, dir_fd=entry.folder)
    if kind in (stat.S_IFCHR, stat.S_IFBLK):
        return new.st_rdev == old.st_rdev
    if kind == stat.S_IFREG:
        return new.st_size == old.st_size and _attributes(found.folder, found.name) == _attributes(
            entry.folder, entry.name
        )
    return kind != stat.S_IFDIR or _attributes(found.folder, found.name) == _attributes(
        entry.folder, entry.name
    )


def _attributes(folder: int, name: bytes) -> dict[str, bytes]:
    fd = open_file(folder, name)
    try:
        return {key: os.getxattr(fd, key) for key in os.listxattr(fd) if xattr_key(key)}
    finally:
        os.close(fd)


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
