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
from collections.abc import Iterator, Sequence
from typing import Protocol

from image.context import reading
from image.context.scan import Scan, Scanner
from model.build import Object, Scanned, Want
from model.contexttree import PREFIX

PIECE = 1 << 20
MAX_SCANS = 64


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

    def delta(self, digest: str) -> tuple[str, bytes] | None:
        """Of a tree: (base, delta) that may do instead; once for each tree, as a host that lacks the base
        asks again."""
        ...


class FolderSource:
    """Of a folder of the client."""

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._lock = threading.Lock()
        self._scans: deque[Scan] = deque(maxlen=MAX_SCANS)
        """Those last asked for, the newest first: steps side by side ask for different files."""
        self._told: set[str] = set()
        """Trees of which the changes were told."""

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

    def delta(self, digest: str) -> tuple[str, bytes] | None:
        if digest in self._told:
            return None
        self._told.add(digest)
        found = (scan.delta(digest) for scan in tuple(self._scans) if scan.tree(digest) is not None)
        return next(found, None)

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


def messages(source: Source, want: Want) -> Iterator[Object]:
    """In the order asked for; they end with the first object that is gone."""
    for digest in want.digests:
        change = source.delta(digest)
        if change is not None:
            yield Object(ask=want.ask, digest=digest, base=change[0], data=change[1], last=True)
            continue
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
