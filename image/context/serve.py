"""The client's end of its contexts: answers Scan and Want.

Invariant: an object goes out under its digest only with the bytes that it is the digest of; a file that is
not what it was is told as gone, and read anew by the next scan. Nothing leaves that the last scan did not
include: a digest that it does not know is gone too.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Protocol

from image.context import reading
from image.context.scan import Scan, Scanner
from model.build import Object, Scanned, Want
from model.build import Scan as ScanAsked
from model.contexttree import PREFIX
from model.errors import ErrorBody, FlotaError, NotFound

PIECE = 1 << 20
MAX_SCANS = 64
_GROUP_BYTES, _GROUP = 4 << 20, 512
"""What is read by one hop into a thread."""


class Gone(Exception):
    """The object can't be had any more; the message names its file."""


class Source(Protocol):
    """One context. Both block, and run in a thread."""

    def scan(self, paths: Sequence[str]) -> Scanned:
        """`ask` is the caller's to fill in. Raises FlotaError."""
        ...

    def pieces(self, digest: str) -> Iterator[bytes]:
        """An object's bytes. Raises Gone, also after some of them."""
        ...


class FolderSource:
    """Of a folder of the client."""

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._lock = threading.Lock()
        self._scans: deque[Scan] = deque(maxlen=MAX_SCANS)
        """Those last asked for, the newest first: steps side by side ask for different files."""

    def scan(self, paths: Sequence[str]) -> Scanned:
        with self._lock:
            scan = self._scanner.scan(paths)
            self._scans.appendleft(scan)
        return Scanned(ask=0, root=scan.root, warnings=scan.warnings)

    def pieces(self, digest: str) -> Iterator[bytes]:
        for scan in tuple(self._scans):
            tree = scan.tree(digest)
            if tree is not None:
                yield tree
                return
            found = scan.file(digest)
            if found is not None:
                yield from self._file(digest, *found)
                return
        raise Gone(f"object {digest[:19]}")

    def _forget(self, path: bytes) -> None:
        with self._lock:
            self._scanner.forget(path)

    def _file(self, digest: str, path: bytes, size: int) -> Iterator[bytes]:
        hasher = hashlib.sha256()
        try:
            top = os.open(self._scanner.top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                for piece in reading.pieces(top, path, size):
                    hasher.update(piece)
                    yield piece
            finally:
                os.close(top)
        except OSError as error:
            self._forget(path)
            raise Gone(reading.shown(path)) from error
        if PREFIX + hasher.hexdigest() != digest:
            self._forget(path)
            raise Gone(reading.shown(path))


class Contexts:
    """The contexts of one build, by name."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources = sources

    async def scanned(self, asked: ScanAsked) -> Scanned:
        from aio.supervisor import in_thread  # a command line without an event loop does not wait for one

        try:
            found: Scanned = await in_thread(self._source(asked.context).scan, asked.paths)
        except FlotaError as error:
            return Scanned(ask=asked.ask, error=ErrorBody.of(error))
        return Scanned(ask=asked.ask, root=found.root, warnings=found.warnings)

    async def objects(self, want: Want) -> AsyncIterator[Object]:
        """In the order asked for; it ends with the first that is gone."""
        from aio.supervisor import in_thread

        wanted = messages(self._source(want.context), want)
        while group := await in_thread(_some, wanted):
            for message in group:
                yield message

    def _source(self, name: str) -> Source:
        source = self._sources.get(name)
        if source is None:
            raise NotFound(f"there is no build context {name!r}")
        return source


def messages(source: Source, want: Want) -> Iterator[Object]:
    """In the order asked for; they end with the first object that is gone."""
    for digest in want.digests:
        try:
            held = b""
            for piece in source.pieces(digest):
                for start in range(0, len(piece), PIECE):
                    if held:
                        yield Object(ask=want.ask, digest=digest, data=held)
                    held = piece[start : start + PIECE]
        except Gone as gone:
            yield Object(ask=want.ask, digest=digest, gone=str(gone))
            return
        yield Object(ask=want.ask, digest=digest, data=held, last=True)


def _some(messages: Iterator[Object]) -> list[Object]:
    group: list[Object] = []
    size = 0
    for message in messages:
        group.append(message)
        size += len(message.data)
        if size >= _GROUP_BYTES or len(group) >= _GROUP:
            break
    return group
