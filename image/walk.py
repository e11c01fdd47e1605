"""A directory tree, entry by entry in the order of its names, by open directories alone.

Works also once the process has given up its root, and while somebody changes the tree: what goes meanwhile is
left out. Invariants: no link is followed; nothing but directories and regular files is ever opened; equal
trees are walked in one order. In the upper directory of an overlay, whiteouts and opaque directories are told
as what they mean (kernel doc filesystems/overlayfs.rst); what that file system keeps as a reference to a
lower layer (redirect_dir, metacopy) raises Unsupported, as its content is not here.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

from model.errors import Unsupported

Kind = Literal["A", "C", "D", "O"]
"""Added, changed, deleted; O: all that the layers below have in this directory is hidden."""
MAX_DEPTH = 512
_OPAQUE, _WHITEOUT = "trusted.overlay.opaque", "trusted.overlay.whiteout"
_REFERENCES = ("trusted.overlay.redirect", "trusted.overlay.metacopy")
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ESTALE)


class Found(NamedTuple):
    """`folder` is open, and stays so until the walk leaves it; so is `fd`, of a directory itself."""

    kind: Kind
    path: bytes
    """From the top, without a slash before it; empty: the top itself."""
    folder: int
    name: bytes
    status: os.stat_result
    fd: int = -1

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    def open(self) -> int:
        """A regular file. Raises OSError, FileNotFoundError when it is none any more."""
        fd = open_file(self.folder, self.name)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise FileNotFoundError(errno.ENOENT, "it is another file now")
        return fd


def open_file(folder: int, name: bytes) -> int:
    """For reading, without its access time changed where that may be asked for."""
    try:
        return os.open(name, _FLAGS | os.O_NOATIME, dir_fd=folder)
    except PermissionError:
        return os.open(name, _FLAGS, dir_fd=folder)


def open_folder(folder: int, name: bytes) -> int | None:
    """None when it is none (any more)."""
    try:
        return os.open(name, _FLAGS | os.O_DIRECTORY, dir_fd=folder)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise


def look(folder: int, name: bytes) -> os.stat_result | None:
    try:
        return os.lstat(name, dir_fd=folder)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise


def xattr(fd: int, key: str) -> bytes:
    """Empty when there is none."""
    try:
        return os.getxattr(fd, key)
    except OSError:
        return b""


class _Level(NamedTuple):
    fd: int
    path: bytes
    names: Iterator[bytes]
    marked: bool
    """Whiteouts here may be regular files with an attribute."""


def walk(top: int, *, upper: bool, foreign: Callable[[int], bool] = lambda _: False) -> Iterator[Found]:
    """`top` is an open directory, and stays open. `upper`: it is an overlay's. `foreign`: of a device,
    whether directories on it are told of but not entered. Raises Unsupported, OSError."""
    levels: list[_Level] = []
    try:
        levels.append(_level(os.dup(top), b"", upper))
        yield Found("A", b"", levels[0].fd, b".", os.fstat(top), levels[0].fd)
        if upper:
            yield from _opaque(levels[0], b"", levels[0].fd, b".")
        while levels:
            here = levels[-1]
            name = next(here.names, None)
            if name is None:
                os.close(levels.pop().fd)
                continue
            status = look(here.fd, name)
            if status is None:
                continue
            path = here.path + b"/" + name if here.path else name
            if not stat.S_ISDIR(status.st_mode):
                yield Found(_kind(here, name, status) if upper else "A", path, here.fd, name, status)
                continue
            fd = open_folder(here.fd, name)
            if fd is None:
                continue
            if len(levels) >= MAX_DEPTH:
                os.close(fd)
                raise Unsupported(f"{shown(path)} is deeper than {MAX_DEPTH} folders")
            levels.append(_level(fd, path, upper))
            yield Found("A", path, here.fd, name, status, fd)
            if upper:
                yield from _opaque(levels[-1], path, here.fd, name)
            if foreign(status.st_dev):
                os.close(levels.pop().fd)
    finally:
        for level in levels:
            os.close(level.fd)


def _level(fd: int, path: bytes, upper: bool) -> _Level:
    try:
        if upper:
            _refuse_references(fd, path)
        names = sorted(os.fsencode(name) for name in os.listdir(fd))
        return _Level(fd, path, iter(names), upper and xattr(fd, _OPAQUE) == b"x")
    except BaseException:
        os.close(fd)
        raise


def _opaque(level: _Level, path: bytes, folder: int, name: bytes) -> Iterator[Found]:
    if xattr(level.fd, _OPAQUE) == b"y":
        yield Found("O", path, folder, name, os.fstat(level.fd), level.fd)


def _kind(here: _Level, name: bytes, status: os.stat_result) -> Kind:
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
        return "D"
    if here.marked and stat.S_ISREG(status.st_mode) and status.st_size == 0:
        fd = open_file(here.fd, name)
        try:
            return "D" if _WHITEOUT in os.listxattr(fd) else "A"
        finally:
            os.close(fd)
    return "A"


def _refuse_references(fd: int, path: bytes) -> None:
    """Also of a file that is open: its content is elsewhere."""
    for key in os.listxattr(fd):
        if key in _REFERENCES:
            raise Unsupported(
                f"{shown(path)} refers to a layer below ({key}): it was written while this kernel's "
                "overlayfs kept such references",
                hint="Use `flota export`, which sees the whole tree",
            )


def refuse_references(fd: int, path: bytes) -> None:
    """Raises Unsupported for an open file of an upper directory whose content is not in it."""
    _refuse_references(fd, path)


def visible(
    found: Iterable[Found], quiet: frozenset[bytes], changed: Callable[[Found], bool]
) -> Iterator[Found]:
    """Without the mount points that the runtime made: empty files and directories with a path in `quiet`,
    unless something else is in them or `changed` says that somebody did more to them."""
    pending: list[Found] = []
    for item in found:
        while pending and not item.path.startswith(pending[-1].path + b"/"):
            pending.pop()
        bare = item.is_folder or (stat.S_ISREG(item.status.st_mode) and item.status.st_size == 0)
        if item.path in quiet and bare and item.kind in ("A", "C") and not changed(item):
            if item.is_folder:
                pending.append(item)
            continue
        yield from pending
        pending.clear()
        yield item


def shown(path: bytes) -> str:
    """For people."""
    return "/" + path[:400].decode(errors="backslashreplace")
