"""Small content by its digest: the configurations of images, as the bytes that their ids are digests of.

    <folder>/<64 hex digits>

Invariant: a blob is visible only whole, on disk, and verified; it is verified again whenever it is read.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from aio.durable import write_file
from image.digest import encoded, of
from model.errors import Damaged, NotFound


class BlobStore:
    """Calls block for a few writes; the image store runs them in a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, keep: Collection[str]) -> None:
        """Remove what is half-written, and what is not in `keep` (digests)."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = {encoded(digest) for digest in keep}
        for entry in self._folder.iterdir():
            if entry.name not in kept:
                entry.unlink()

    def put(self, data: bytes) -> str:
        """Its digest, once it is on disk."""
        digest = of(data)
        write_file(self._path(digest), data)
        return digest

    def get(self, digest: str) -> bytes:
        """Raises NotFound, or Damaged when the disk gives back something else."""
        try:
            data = self._path(digest).read_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"no blob {digest[:19]}") from error
        if of(data) != digest:
            raise Damaged(
                f"blob {digest[:19]} does not match its digest any more", hint="Pull the image again"
            )
        return data

    def remove(self, digest: str) -> None:
        """Idempotent."""
        self._path(digest).unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        return self._folder / encoded(digest)
