"""A registry's content: its index and its files, as one. Every call blocks; they come from any thread.

Invariants: a blob's record is made after its file has its name, and is gone before its file is, both under
the index's lock, so that whatever ends the process leaves a file without a record at worst, which the next
start removes; collecting never takes what an upload, a mount or a question for it made sure of within
`grace`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from image.registry.server import copies
from image.registry.server.files import PREFIXES, Files
from image.registry.server.index import Begun, Index
from image.registry.server.limits import Limits
from model.errors import Exhausted, Unavailable

log = logging.getLogger("flota.registry")


class Content:
    """`now` gives unix seconds."""

    def __init__(self, index: Index, files: Files, limits: Limits, now: Callable[[], float]) -> None:
        self.index = index
        self.files = files
        self.limits = limits
        self._now = now

    @classmethod
    def open(cls, folder: Path, limits: Limits, now: Callable[[], float]) -> Content:
        """Raises as `Index.open`. Removes what a process that ended left half-done."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        files = Files(folder, limits)
        index = Index.open(folder / "index.db")
        try:
            files.open()
            content = cls(index, files, limits, now)
            content._sweep()
        except BaseException:
            index.close()
            raise
        return content

    def close(self) -> None:
        self.index.close()

    def _sweep(self) -> None:
        """Files and records that have no counterpart."""
        for prefix in PREFIXES:
            recorded, found = self.index.blobs(prefix), set(self.files.blobs(prefix))
            for digest in found - recorded.keys():
                self.files.remove_blob(digest)
            for digest in recorded.keys() - found:
                log.error("blob %s is lost: its file is missing", digest)
                self.index.lose(digest)
        begun = {upload.id for upload in self.index.begun()}
        for ident in set(self.files.uploads()) - begun:
            self.files.remove_upload(ident)

    # -- blobs --------------------------------------------------------------------------------------
    def find(self, name: str, digest: str) -> int | None:
        """The size of a blob that a repository has, which stays for half of `grace` at least; None: it has
        none."""
        with self.index.lock:
            found = self.index.linked(name, digest)
            if found is None:
                return None
            size, touched = found
            if self.files.blob_size(digest) != size:
                self.spoiled(digest)
                return None
            if touched < self._now() - self.limits.grace / 2:
                try:
                    self.index.link(name, digest, self._now())
                except (Exhausted, Unavailable) as error:  # where nothing is written nothing is collected
                    log.warning("that blob %s was asked for is not noted: %s", digest, error)
            return size

    def mount(self, name: str, digest: str, source: str) -> bool:
        """`name` has from now on what `source` has."""
        with self.index.lock:
            if self.find(source, digest) is None:
                return False
            self.index.link(name, digest, self._now())
            return True

    def publish(self, upload: Begun, digest: str, size: int) -> None:
        """An upload whose file is on disk and was verified is its repository's blob."""
        with self.index.lock:
            if self.index.blob(digest) == size and self.files.blob_size(digest) == size:
                self.index.link(upload.repository, digest, self._now(), upload=upload.id)
                self.files.remove_upload(upload.id)
                return
            self.files.publish(upload.id, digest)
            self.index.link(upload.repository, digest, self._now(), size=size, upload=upload.id)

    def spoiled(self, digest: str) -> None:
        """A blob's file is not what it was: it is gone, until somebody pushes it again or a copy is sent."""
        log.error("blob %s is damaged on disk: it is lost", digest)
        with self.index.lock:
            self.index.lose(digest)
            self.files.remove_blob(digest)

    def come_back(self, ident: str, digest: str) -> bool:
        """A verified file among the uploads' is a blob that was lost; False: nobody waits for it."""
        with self.index.lock:
            if digest not in copies.lost(self.index):
                self.files.remove_upload(ident)
                return False
            self.files.publish(ident, digest)
            return copies.came_back(self.index, digest)

    # -- uploads ------------------------------------------------------------------------------------
    def begin(self, begun: Begun) -> None:
        """Raises Exhausted."""
        self.files.check_room(0)
        self.index.begin(begun)

    def drop(self, ident: str) -> None:
        """An upload that is given up. Idempotent."""
        with self.index.lock:
            self.files.remove_upload(ident)
            self.index.end(ident)

    def collect(self) -> int:
        """Remove what nobody holds; the number of blobs removed."""
        gone = 0
        for digest in self.index.release(self._now() - self.limits.grace):
            with self.index.lock:
                if self.index.drop_unlinked(digest):
                    self.files.remove_blob(digest)
                    gone += 1
        return gone
