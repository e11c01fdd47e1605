"""A tree of the object store as a place to copy from.

Objects are files named by their digest, below one open directory, so that they can be read by a process that
has another root by now. Invariant: what was read as a tree is one (`model.contexttree.decode`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from image.build.places import NO_TIME, Item
from image.context.objects import place
from model.contexttree import Entry, decode, key_of
from model.errors import Damaged


class Objects:
    """`folder` is the object store's directory, open."""

    def __init__(self, folder: int) -> None:
        self._folder = folder

    def open(self, digest: str) -> int:
        """Raises Damaged for one that is not there: who began to use a tree has leased its objects."""
        try:
            return os.open(place(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folder)
        except FileNotFoundError as error:
            raise Damaged(f"the build context's object {digest[:19]}… is gone", hint="Build again") from error

    def read(self, digest: str) -> bytes:
        with open(self.open(digest), "rb") as file:
            return file.read()


class TreeFolder:
    """A tree object."""

    fd = -1

    def __init__(self, objects: Objects, digest: str) -> None:
        self._objects = objects
        self._tree = decode(objects.read(digest))
        self._entries = {entry.name: entry for entry in self._tree.entries}

    def itself(self) -> Item:
        return Item("dir", mtime_ns=NO_TIME, key=key_of(self._tree))

    def names(self) -> Sequence[bytes]:
        return list(self._entries)

    def item(self, name: bytes) -> Item | None:
        entry = self._entries.get(name)
        return None if entry is None else item_of(entry)

    def enter(self, name: bytes) -> TreeFolder:
        return TreeFolder(self._objects, self._entries[name].digest)

    def open(self, name: bytes) -> int:
        return self._objects.open(self._entries[name].digest)

    def xattrs(self, name: bytes, fd: int) -> Mapping[str, bytes]:
        """Docker's builders take none from a context."""
        del name, fd
        return {}

    def close(self) -> None:
        pass


def item_of(entry: Entry) -> Item:
    return Item(
        kind="dir" if entry.kind == "tree" else entry.kind,
        mode=entry.mode & 0o7777,
        size=entry.size,
        mtime_ns=entry.mtime_ns,
        target=entry.target,
        digest=entry.digest,
        key=entry.key,
        same=entry.same,
    )
