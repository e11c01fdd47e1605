"""The checksum by which the cache knows what a COPY would write: Docker's rule, all but times.

Of a whole directory of a context it is the tree's own (`model.contexttree.key_of`), however large. What is at
hand as files alone is read, several at a time. Invariants: equal files have equal checksums wherever they
lie, holes or not; a file of zeros costs no more than looking for its data.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec

from image.build.places import Folder, Item, descend
from image.build.select import Picked
from image.build.walking import Step, walk
from image.dockerfile.patterns import Patterns
from image.pack import holes
from model.errors import Exhausted

PIECE = 1 << 20
MAX_ENTRIES = 4_000_000
_ZEROS = bytes(PIECE)
_AHEAD = 64
"""Files that are being read at a time at most."""


class ContentKey:
    """Add what is picked, in order; then `value`."""

    def __init__(self, pool: ThreadPoolExecutor | None = None) -> None:
        self._hasher = hashlib.sha256()
        self._known: dict[Hashable, int] = {}
        """Of the directory that is looked at: files with several names, by the number of the first."""
        self._pool = pool
        self._pending: deque[tuple[object, Future[str] | None]] = deque()
        self.files = 0
        self.size = 0

    def value(self) -> str:
        while self._pending:
            self._take()
        return "sha256:" + self._hasher.hexdigest()

    def inline(self, name: bytes, mode: int, content: bytes) -> None:
        self._add(("file", name, mode, hashlib.sha256(content).hexdigest()))
        self.files += 1
        self.size += len(content)

    def file(self, name: bytes, mode: int, fd: int) -> None:
        """An open regular file, which is closed here."""
        self.files += 1
        self.size += os.fstat(fd).st_size
        self._read(("file", name, mode), fd)

    def picked(self, top: Folder, one: Picked, without: Patterns | None) -> int:
        """How many entries are meant."""
        if one.item.kind != "dir":
            if left_out(one.name, without):
                return 0
            folder = descend(top, one.parts[:-1])
            try:
                self._entry(folder, one.parts[-1], one.name, one.item)
            finally:
                if folder is not top:
                    folder.close()
            return 1
        if one.item.key and one.only is None and without is None:
            self._add(("tree", one.item.key))
            return 1
        folder = descend(top, one.parts)
        try:
            return self._folder(folder, one.only, without)
        finally:
            if folder is not top:
                folder.close()

    def _folder(self, folder: Folder, only: Patterns | None, without: Patterns | None) -> int:
        self._add(("into",))
        self._known.clear()
        count = 0
        waiting: list[object] = []
        for step in walk(folder, only, without):
            if not step.name:
                if waiting:
                    waiting.pop()
                else:
                    self._add(("up",))
                continue
            if step.inner is not None:
                waiting.append(_folder_facts(step, step.inner))
            if not step.meant:
                continue
            for facts in waiting:
                self._add(facts)
            waiting.clear()
            count += 1
            if count > MAX_ENTRIES:
                raise Exhausted(f"more than {MAX_ENTRIES} files are to be copied")
            if step.inner is None:
                self._shared(step.item, count)
                self._entry(step.folder, step.name, step.name, step.item)
        return count

    def _shared(self, item: Item, count: int) -> None:
        """A further name of a file that was met is a link to it when it is written."""
        if item.same is None:
            return
        first = self._known.setdefault(item.same, count)
        if first != count:
            self._add(("same", first))

    def _entry(self, folder: Folder, name: bytes, told: bytes, item: Item) -> None:
        """`told`: the name under which it is written."""
        if item.kind != "file":
            mode = 0 if item.kind == "link" else item.mode
            self._add((item.kind, told, mode, item.uid, item.gid, item.target, item.device))
            return
        self.files += 1
        self.size += item.size
        facts = ("file", told, item.mode, item.uid, item.gid)
        if item.digest:
            self._add((*facts, item.digest, sorted(folder.xattrs(name, -1).items())))
            return
        fd = folder.open(name)
        try:
            xattrs = sorted(folder.xattrs(name, fd).items())
        except BaseException:
            os.close(fd)
            raise
        self._read((*facts, xattrs), fd)

    def _add(self, facts: object) -> None:
        if self._pending:
            self._pending.append((facts, None))
        else:
            self._hasher.update(msgspec.msgpack.encode(facts))

    def _read(self, facts: object, fd: int) -> None:
        if self._pool is None:
            self._add((facts, digest_of(fd)))
            return
        self._pending.append((facts, self._pool.submit(digest_of, fd)))
        while len(self._pending) > _AHEAD:
            self._take()

    def _take(self) -> None:
        facts, digest = self._pending.popleft()
        told = facts if digest is None else (facts, digest.result())
        self._hasher.update(msgspec.msgpack.encode(told))


def _folder_facts(step: Step, inner: Folder) -> object:
    item = step.item
    xattrs = sorted(step.folder.xattrs(step.name, inner.fd).items())
    return ("dir", step.name, step.meant, item.mode, item.uid, item.gid, xattrs)


def left_out(name: bytes, without: Patterns | None) -> bool:
    """Whether `--exclude` means a file that a source names, by the name it would be written under."""
    return without is not None and without.matches(os.fsdecode(name))


def digest_of(fd: int) -> str:
    """Of a file's size and the pieces of it that are not all zeros; it is closed."""
    try:
        status = os.fstat(fd)
        hasher = hashlib.sha256(b"%d" % status.st_size)
        for number in _pieces(fd, status):
            piece = os.pread(fd, PIECE, number * PIECE)
            if piece != _ZEROS[: len(piece)]:
                hasher.update(b"\n%d\n" % number)
                hasher.update(piece)
        return hasher.hexdigest()
    finally:
        os.close(fd)


def _pieces(fd: int, status: os.stat_result) -> Iterator[int]:
    """Numbers of those that hold data."""
    regions = holes(fd, status)
    last = -1
    for offset, length in ((0, status.st_size),) if regions is None else regions:
        for number in range(max(offset // PIECE, last + 1), -(-(offset + length) // PIECE)):
            yield number
            last = number
