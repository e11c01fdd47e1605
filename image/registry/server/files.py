"""The bytes of blobs and of uploads, in files. Every call blocks.

    <folder>/blobs/<algorithm>/<2 digits>/<digits>   whole, verified, on disk
    <folder>/uploads/<32 digits>                     what has come so far

Invariant: a blob gets its name once its bytes are on disk and have that digest; nothing writes to it after.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from aio.durable import sync_folder
from image.registry.server.digests import DIGITS, SHA256, is_digest
from image.registry.server.limits import Limits
from model.errors import Damaged, Exhausted

PIECE = 1 << 20
"""Bytes that are read or written by one hop into a thread."""
PREFIXES = tuple(f"{name}:{number:02x}" for name in DIGITS for number in range(256))
"""How a digest may begin; each has a folder of its own."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Files:
    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self._blobs = folder / "blobs"
        self._uploads = folder / "uploads"
        self._limits = limits

    def open(self) -> None:
        for prefix in PREFIXES:
            self._shelf(prefix).mkdir(mode=0o700, parents=True, exist_ok=True)
        self._uploads.mkdir(mode=0o700, exist_ok=True)
        for folder in (self._folder, self._blobs, *(self._blobs / name for name in DIGITS)):
            sync_folder(folder)

    def blob(self, digest: str) -> Path:
        algorithm, _, digits = digest.partition(":")
        return self._shelf(f"{algorithm}:{digits[:2]}") / digits

    def _shelf(self, prefix: str) -> Path:
        algorithm, _, digits = prefix.partition(":")
        return self._blobs / algorithm / digits

    def upload(self, ident: str) -> Path:
        return self._uploads / ident

    def blob_size(self, digest: str) -> int | None:
        """None where there is no such file."""
        try:
            return self.blob(digest).stat().st_size
        except FileNotFoundError:
            return None

    def publish(self, ident: str, digest: str) -> None:
        """An upload that was verified becomes a blob; its name is on disk when this returns."""
        path = self.blob(digest)
        os.rename(self.upload(ident), path)
        sync_folder(path.parent)

    def remove_blob(self, digest: str) -> None:
        self.blob(digest).unlink(missing_ok=True)

    def remove_upload(self, ident: str) -> None:
        self.upload(ident).unlink(missing_ok=True)

    def blobs(self, prefix: str) -> list[str]:
        """Digests of the files whose names begin so; what is no blob is removed."""
        found = []
        algorithm = prefix.partition(":")[0]
        for entry in self._shelf(prefix).iterdir():
            if is_digest(digest := f"{algorithm}:{entry.name}"):
                found.append(digest)
            else:
                entry.unlink()
        return found

    def uploads(self) -> list[str]:
        return [entry.name for entry in self._uploads.iterdir()]

    def check_room(self, more: int) -> None:
        """Raises Exhausted when so many bytes more would eat into what is to stay free."""
        disk = os.statvfs(self._folder)
        reserve = min(self._limits.reserve, disk.f_blocks * disk.f_frsize // 20)
        if disk.f_bavail * disk.f_frsize < reserve + more:
            raise Exhausted(
                f"the registry's disk has no room: {reserve >> 20} MiB of it stay free",
                hint="Delete images, or give it room",
            )


def append(path: Path, offset: int, data: bytes) -> None:
    """Write at `offset`, which is the file's end as it is known: what lies beyond was never confirmed. Raises
    Exhausted, and then the file ends at `offset` again."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        view, at = memoryview(data), offset
        while view:
            done = os.pwrite(fd, view, at)
            view, at = view[done:], at + done
    except OSError as error:
        os.ftruncate(fd, offset)
        if error.errno not in _FULL:
            raise
        hint = "Delete images, or give it room"
        raise Exhausted(f"the registry's disk is full: {error.strerror}", hint=hint) from error
    finally:
        os.close(fd)


def settle(path: Path, size: int) -> None:
    """The file's bytes are on disk, and none beyond `size`. Raises Damaged where it hasn't as many; one of
    none is made."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(fd).st_size < size:
            raise Damaged("bytes of the upload are gone", hint="Push it again")
        os.ftruncate(fd, size)
        os.fsync(fd)
    finally:
        os.close(fd)


def hashed(path: Path, size: int, algorithm: str = SHA256) -> hashlib._Hash:
    """The hash of a file's first bytes."""
    hasher = hashlib.new(algorithm)
    left = size
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        while left and (piece := file.read(min(PIECE, left))):
            hasher.update(piece)
            left -= len(piece)
    return hasher


def pieces(path: Path, start: int, end: int) -> Iterator[bytes]:
    """Of a blob's file; fewer bytes than asked for where it is short."""
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        while start < end and (piece := file.read(min(PIECE, end - start))):
            yield piece
            start += len(piece)
