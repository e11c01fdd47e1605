"""One entry of a folder that is scanned, looked at and read: its digest, link target, attributes. Blocking.

What is read is a file's first `size` bytes, whatever happens to it meanwhile: one that only grows is sent as
it was. Invariant: what was read so shortly after it was changed that another change might not show is not
trusted again (the rule that git calls racy).
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterator

from image.context.scancache import Row
from image.openat import beneath, folder_of
from model.contexttree import CAPABILITY, MAX_SIZE, PREFIX, Entry, Kind
from model.errors import Forbidden, InvalidInput

PIECE = 1 << 20
ATTEMPTS = 5
TICK = 20_000_000
"""Nanoseconds, more than one of the kernel's ticks."""
COARSE = 2_000_000_000
"""Where a file system keeps no parts of a second."""
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ESTALE)
_NO_XATTR = (errno.ENODATA, errno.ENOTSUP, errno.EPERM, errno.EACCES)
KINDS: dict[int, Kind] = {stat.S_IFREG: "file", stat.S_IFLNK: "link", stat.S_IFIFO: "fifo"}


def shown(path: bytes) -> str:
    """For people."""
    return path[:400].decode(errors="backslashreplace") or "."


def unreadable(path: bytes, error: OSError) -> Forbidden:
    return Forbidden(
        f"{shown(path)} of the build context can't be read: {error.strerror}",
        hint="Make it readable, or leave it out by a .dockerignore file",
    )


def row_of(name: bytes, s: os.stat_result) -> Row:
    return (name, s.st_mode, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino, s.st_dev)


def read_all(top: int, wanted: list[tuple[bytes, Row]]) -> list[tuple[Row, Entry] | None]:
    """Of paths from the open folder `top`; None: gone. Raises Forbidden, InvalidInput."""
    buffer = bytearray(PIECE)
    return [read_one(top, path, row, buffer) for path, row in wanted]


def read_one(top: int, path: bytes, row: Row, buffer: bytearray) -> tuple[Row, Entry] | None:
    kind = KINDS[stat.S_IFMT(row[1])]
    try:
        if kind == "file":
            return _file(top, path, row[0], buffer)
        target = b""
        if kind == "link":
            with folder_of(top, path, last=True) as (folder, name):
                target = os.readlink(name, dir_fd=folder)
        return row, Entry(
            name=row[0], kind=kind, mode=stat.S_IMODE(row[1]), mtime_ns=clamped(row[3]), target=target
        )
    except OSError as error:
        if error.errno in _GONE or (kind == "link" and error.errno == errno.EINVAL):
            return None
        raise unreadable(path, error) from error


def _file(top: int, path: bytes, name: bytes, buffer: bytearray) -> tuple[Row, Entry] | None:
    for _ in range(ATTEMPTS):
        began = time.time_ns()
        fd = open_file(top, path)
        try:
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                return None
            digest = _digest(fd, before.st_size, buffer)
            if digest is None:
                continue
            xattrs = _xattrs(fd)
            row = row_of(name, before)
            if row_of(name, os.fstat(fd)) != row or not settled(before, began):
                row = (*row[:4], -1, *row[5:])
        finally:
            os.close(fd)
        return row, Entry(
            name=name,
            mode=stat.S_IMODE(before.st_mode),
            size=before.st_size,
            mtime_ns=clamped(before.st_mtime_ns),
            digest=digest,
            xattrs=xattrs,
        )
    raise InvalidInput(
        f"{shown(path)} of the build context becomes shorter whenever it is read",
        hint="Build when nothing writes to it, or leave it out by a .dockerignore file",
    )


def settled(status: os.stat_result, began: int) -> bool:
    """Whether a later change would show in its times. `began`: ns, before it was opened."""
    last = max(status.st_mtime_ns, status.st_ctime_ns)
    fine = status.st_ctime_ns % 1_000_000 or status.st_mtime_ns % 1_000_000
    return last < began - (TICK if fine else COARSE)


def _digest(fd: int, size: int, buffer: bytearray) -> str | None:
    """Of the first `size` bytes; None: there are fewer."""
    hasher = hashlib.sha256()
    view = memoryview(buffer)
    while size:
        count = os.readv(fd, [view[: min(size, len(buffer))]])
        if not count:
            return None
        hasher.update(view[:count])
        size -= count
    return PREFIX + hasher.hexdigest()


def _xattrs(fd: int) -> dict[str, bytes]:
    """What Docker sends of them."""
    try:
        return {CAPABILITY: os.getxattr(fd, CAPABILITY)}
    except OSError as error:
        if error.errno in _NO_XATTR:
            return {}
        raise


def clamped(ns: int) -> int:
    """Within what a tree may say."""
    return max(-MAX_SIZE, min(ns, MAX_SIZE))


def open_file(top: int, path: bytes) -> int:
    """For reading; never waits, and leaves the access time where it may. Raises OSError, also where a link
    stands on the way: what the scan looked at was none."""
    try:
        return beneath(top, path, _FLAGS | os.O_NOATIME)
    except PermissionError:
        return beneath(top, path, _FLAGS)


def pieces(top: int, path: bytes, size: int) -> Iterator[bytes]:
    """The first `size` bytes of a file, as far as there are so many. Raises OSError."""
    fd = open_file(top, path)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return
        while size and (data := os.read(fd, min(size, PIECE))):
            size -= len(data)
            yield data
    finally:
        os.close(fd)
