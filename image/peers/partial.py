"""A blob on its way onto this host, in a file that others are served from meanwhile.

Invariant: of a piece that `have` holds all bytes are in the file; they are unverified until `whole` is set.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from aio.supervisor import in_thread
from image.manifest import Descriptor
from image.peers import chunks
from image.registry.source import Remote
from model.errors import Exhausted, NotFound

LINGER = 60.0
"""Seconds between two looks whether the pull that a whole blob came for goes on; as long, and until the next
look, it is served from its file. Then others get it from the image's layer."""
_BLOCK = 1 << 20


class Partial:
    """`fd` is the file, for reading and writing; it is this object's own."""

    def __init__(
        self, layer: Descriptor, remote: Remote, path: Path, progress: Callable[[int], None]
    ) -> None:
        self.layer = layer
        self.remote = remote
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._progress = progress
        self._told = 0
        """By `progress`: so many bytes may be read already."""
        self.have = 0
        self.whole = False
        self.touched = asyncio.get_running_loop().time()
        """When it last got something."""
        self._changed = asyncio.Event()
        self._hasher = hashlib.sha256()
        self._hashed = 0
        self._hashing = asyncio.Lock()
        self._readers = 0
        self._closing = False

    @property
    def complete(self) -> bool:
        return self.have == chunks.every(self.layer.size)

    @property
    def missing(self) -> int:
        return chunks.every(self.layer.size) & ~self.have

    # -- filled from outside ------------------------------------------------------------------------
    def restart(self) -> None:
        """Somebody writes the file from its start."""
        self.have = 0
        self._hasher, self._hashed = hashlib.sha256(), 0

    def reached(self, length: int) -> None:
        """The first `length` bytes are in the file."""
        self._filled(chunks.within(length, self.layer.size))
        self._tell(length)

    # -- filled piece by piece ----------------------------------------------------------------------
    async def put(self, piece: int, data: bytes) -> None:
        """Raises Exhausted."""
        whole = chunks.prefix(self.have, self.layer.size)
        if self._told > whole:  # a part of this piece came from outside, and may have been read
            self._tell(whole)
        await in_thread(self._write, chunks.span(piece, self.layer.size)[0], data)
        before = chunks.prefix(self.have, self.layer.size)
        self._filled(self.have | 1 << piece)
        reached = chunks.prefix(self.have, self.layer.size)
        if reached > before:
            self._tell(reached)
        async with self._hashing:
            await in_thread(self._hash, chunks.prefix(self.have, self.layer.size))

    def _tell(self, length: int) -> None:
        self._told = length
        self._progress(length)

    def _write(self, offset: int, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                written = os.pwrite(self._fd, view, offset)
                view, offset = view[written:], offset + written
        except OSError as error:
            short = self.layer.digest[7:19]
            raise Exhausted(f"no space for layer {short}: {error.strerror}") from error

    def _hash(self, end: int) -> None:
        while self._hashed < end:
            data = os.pread(self._fd, min(_BLOCK, end - self._hashed), self._hashed)
            self._hasher.update(data)
            self._hashed += len(data)

    async def verified(self) -> bool:
        """Whether its bytes are what its digest says; all of them are there."""
        async with self._hashing:  # whoever put the last piece may have been cut short before it was hashed
            await in_thread(self._hash, self.layer.size)
        return "sha256:" + self._hasher.hexdigest() == self.layer.digest

    async def sums(self) -> list[bytes]:
        """A digest of each piece as it stands in the file."""
        found: list[bytes] = []
        for piece in range(chunks.count(self.layer.size)):
            offset, length = chunks.span(piece, self.layer.size)
            found.append(await in_thread(lambda at=offset, n=length: _sum(self._fd, at, n)))
        return found

    @property
    def awaited(self) -> bool:
        """Whether its pull goes on, whose folder the file is in."""
        return self._path.exists()

    # -- read by others -----------------------------------------------------------------------------
    async def read(self, offset: int, length: int) -> bytes:
        """Raises NotFound once it is gone."""
        if self._closing:
            raise NotFound("this blob is gone from here")
        self._readers += 1
        try:
            data: bytes = await in_thread(os.pread, self._fd, length, offset)
            return data
        finally:
            self._readers -= 1
            self._close_unread()

    async def changed(self, known: int, within: float) -> None:
        """Until another number of pieces is here than `known`, for so many seconds at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while self.have.bit_count() == known:
                    await self._changed.wait()

    def _filled(self, have: int) -> None:
        if have != self.have:
            self.have = have
            self.touch()
            self.ring()

    def touch(self) -> None:
        self.touched = asyncio.get_running_loop().time()

    def ring(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def close(self) -> None:
        """Once nobody reads: the descriptor's number may be another file's at once."""
        self._closing = True
        self._close_unread()

    def _close_unread(self) -> None:
        if self._closing and not self._readers and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _sum(fd: int, offset: int, length: int) -> bytes:
    hasher = hashlib.sha256()
    while length:
        data = os.pread(fd, min(_BLOCK, length), offset)
        if not data:
            break
        hasher.update(data)
        offset, length = offset + len(data), length - len(data)
    return hasher.digest()


class Partials:
    """Those of this host by digest; of several of one digest the first is shown to others."""

    def __init__(self, *, linger: float = LINGER) -> None:
        self._linger = linger
        self._open: dict[str, Partial] = {}
        self._users: dict[str, int] = {}

    def find(self, digest: str) -> Partial | None:
        return self._open.get(digest)

    def all(self) -> Mapping[str, Partial]:
        return self._open

    def whole(self) -> frozenset[str]:
        """Digests of those that are whole: their images may have to wait long for other layers."""
        return frozenset(digest for digest, partial in self._open.items() if partial.whole)

    @contextlib.contextmanager
    def coming(
        self, layer: Descriptor, remote: Remote, path: Path, progress: Callable[[int], None]
    ) -> Iterator[Partial]:
        """One that others may have parts of until the block ends; all of it until its pull has ended, once it
        is whole."""
        partial = Partial(layer, remote, path, progress)
        shown = self._open.setdefault(layer.digest, partial) is partial
        try:
            yield partial
        finally:
            if shown and partial.whole:
                self._keep(partial)
            elif shown:
                self._drop(partial)
            else:
                partial.close()

    def _keep(self, partial: Partial) -> None:
        def look() -> None:
            if self._open.get(partial.layer.digest) is partial and partial.awaited:
                self._keep(partial)
            else:
                self._drop(partial)

        asyncio.get_running_loop().call_later(self._linger, look)

    def _drop(self, partial: Partial) -> None:
        if self._open.get(partial.layer.digest) is partial:
            del self._open[partial.layer.digest]
            partial.ring()
            partial.close()

    def close(self) -> None:
        for partial in list(self._open.values()):
            self._drop(partial)
