"""What a folder's files were when they were read last, so that unchanged ones are not read again.

One file for each context, below the user's cache folder:

    <sha256 of the context's path>      checksum (4 bytes), then MessagePack

A file counts as unchanged when device, inode, size, mode, and both times are what they were. Invariants: what
may have changed within the same tick of the clock in which it was read is not remembered; a cache that is
damaged, another user's, or of another version is as good as none; it is replaced as a whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import zlib
from collections.abc import Mapping

import msgspec

from model.codec import UNREADABLE
from model.contexttree import Entry

VERSION = 2
MAX_FILE = 1 << 30
MAX_CONTEXTS = 64
"""Caches that are kept: those used last."""

Row = tuple[bytes, int, int, int, int, int, int]
"""Name, mode, size, mtime, ctime (ns), inode, device."""


class Known(msgspec.Struct, frozen=True, array_like=True):
    """One directory as it was: `rows` of what was included, sorted; `children`: digests of its folders'
    trees, in their order among the rows."""

    rows: list[Row]
    children: list[str]
    tree: bytes
    digest: str
    key: str
    totals: tuple[int, int]
    """Files and bytes, of all below too."""
    others: list[tuple[Row, Entry]] = []
    """What was included before."""
    before: bytes = b""
    """The tree that this one took the place of, if it is large: a host may have it."""
    groups: dict[bytes, int] = {}
    """`model.contexttree.Entry.group` by name, where it is not 0."""


class _Content(msgspec.Struct, frozen=True, array_like=True):
    version: int
    folders: dict[bytes, Known]


def load(cache: str, context: bytes) -> dict[bytes, Known]:
    """By path from the context's top; empty without a usable cache."""
    path = _path(cache, context)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return {}
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or status.st_size > MAX_FILE:
            return {}
        try:
            data = file.read()
        except OSError:
            return {}
    if int.from_bytes(data[:4], "big") != zlib.crc32(memoryview(data)[4:]):
        return {}
    try:
        content = msgspec.msgpack.decode(memoryview(data)[4:], type=_Content)
    except UNREADABLE:
        return {}
    return content.folders if content.version == VERSION else {}


def save(cache: str, context: bytes, folders: Mapping[bytes, Known]) -> None:
    """Raises OSError; then the old one is as it was."""
    data = msgspec.msgpack.encode(_Content(VERSION, dict(folders)))
    if len(data) > MAX_FILE:
        return
    os.makedirs(cache, mode=0o700, exist_ok=True)
    aside = os.path.join(cache, f".new-{os.getpid()}-{time.time_ns()}")
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(zlib.crc32(data).to_bytes(4, "big"))
            file.write(data)
        os.rename(aside, _path(cache, context))
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise
    _prune(cache)


def used(cache: str, context: bytes) -> None:
    """It was of use as it is: it goes later than others."""
    with contextlib.suppress(OSError):
        os.utime(_path(cache, context))


def _prune(cache: str) -> None:
    with os.scandir(cache) as entries:
        found = sorted((entry.stat(follow_symlinks=False).st_mtime_ns, entry.name) for entry in entries)
    for _, name in found[:-MAX_CONTEXTS]:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(cache, name))


def _path(cache: str, context: bytes) -> str:
    return os.path.join(cache, hashlib.sha256(context).hexdigest())
