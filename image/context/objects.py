"""The objects of build contexts on a host, by digest: trees and blobs, the ones used last.

    <folder>/boot               the kernel's boot id: what a power loss may have damaged is thrown away
    <folder>/new/<n>/<number>   on its way, in several folders: see `image.blockgroups`
    <folder>/blobs/<2 hex>/<64 hex>

Invariants: an object has its name only when all of it is there and its digest was that of the name; what a
lease holds is not taken away; without leases there are no more than `limit` bytes. Nobody's word is trusted:
a tree's entries are checked against the objects that they name, sizes and keys too (`whole`). Any thread may
call.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shutil
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from image.blockgroups import spread_inodes
from image.digest import encoded
from image.extract import write_all
from model.contexttree import MAX_TREE, PREFIX, Tree, decode
from model.errors import Damaged, Exhausted, NotFound

LIMIT = 10 << 30
MOST = 64 << 30
"""Bytes that are received for one build."""
ASK = 64 << 20
"""Bytes after which the disk is asked again."""
RESERVE = 1 << 30
"""Bytes of the file system that stay free whatever comes."""
BOOT_ID = "/proc/sys/kernel/random/boot_id"
MAX_ROOTS = 64
_NEW = 64
_CLUSTER = 4096
"""What a file takes at least."""


def place(digest: str) -> str:
    """An object's path below the store's folder. Raises Damaged for no digest."""
    name = encoded(digest)
    return f"blobs/{name[:2]}/{name}"


class Totals(NamedTuple):
    """Of a whole tree: entries and bytes with all below, folders below each other, key."""

    entries: int
    size: int
    depth: int
    key: str


class Lease:
    """What one build holds. `room`: bytes that may be received for it. End it by `close`."""

    def __init__(self, objects: Objects, room: int) -> None:
        self._objects = objects
        self.room = room
        self._most = room
        self._unasked = 0
        self.held: set[str] = set()
        self.roots: set[str] = set()
        """Trees of which all is held."""

    def hold(self, digest: str) -> bool:
        """Whether it is there; then it stays."""
        return digest in self.held or self._objects.take_up(digest, self)

    def hold_root(self, root: str) -> bool:
        """A whole tree with all below it, if it is known to be here."""
        return root in self.roots or self._objects.take_up_root(root, self)

    def holds(self, root: str, digests: frozenset[str]) -> None:
        """The tree is whole, of these objects, and all of them are held."""
        self._objects.remember_root(root, self, digests)

    def take(self, size: int) -> None:
        """So many bytes more are to be received. Raises Exhausted, also where others have filled the disk
        meanwhile."""
        self.room -= size
        self._unasked += size
        full = False
        if self._unasked >= ASK:
            self._unasked, full = 0, not self._objects.room()
        if self.room < 0 or full:
            raise Exhausted(
                f"the build's files need more than the {self._most} bytes that this host has for them",
                hint="Leave out what the build does not need by a .dockerignore file",
            )

    def close(self) -> None:
        self._objects.let_go(self)


class Objects:
    """`room` tells how many bytes a build could receive now."""

    def __init__(
        self,
        folder: Path,
        *,
        limit: int = LIMIT,
        boot_id: str = BOOT_ID,
        room: Callable[[], int] | None = None,
    ) -> None:
        self._folder = folder
        self.room = room or (lambda: room_in(self.folder))
        self._limit = limit
        self._boot_id = boot_id
        self._lock = threading.Lock()
        self._sizes: OrderedDict[str, int] = OrderedDict()
        """By digest, those used last at the end."""
        self._held: Counter[str] = Counter()
        self._total = 0
        self._numbers = itertools.count(1)
        self._roots: OrderedDict[str, frozenset[str]] = OrderedDict()
        """All objects of trees that are whole, those used last at the end; as `whole`."""
        self.whole: dict[str, Totals] = {}
        """Trees of which all is here and checked; emptied when anything goes."""

    @property
    def folder(self) -> str:
        return os.fspath(self._folder)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self._total

    def open(self) -> None:
        """Take stock. What is half-written goes; all, if the host started anew. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        boot = Path(self._boot_id).read_bytes()
        stamp = self._folder / "boot"
        if not stamp.exists() or stamp.read_bytes() != boot:
            for path in list(self._folder.iterdir()):
                _remove(path)
            stamp.write_bytes(boot)
        shutil.rmtree(self._folder / "new", ignore_errors=True)
        (self._folder / "new").mkdir(mode=0o700)
        spread_inodes(self._folder / "new")
        for number in range(_NEW):
            (self._folder / "new" / str(number)).mkdir(mode=0o700)
        for path in self._folder.glob("git/fetch-*"):
            shutil.rmtree(path)
        found: list[tuple[int, str, int]] = []
        (self._folder / "blobs").mkdir(mode=0o700, exist_ok=True)
        spread_inodes(self._folder / "blobs")
        for number in range(256):
            base = self._folder / "blobs" / f"{number:02x}"
            base.mkdir(mode=0o700, exist_ok=True)
            with os.scandir(base) as entries:
                for entry in entries:
                    s = entry.stat(follow_symlinks=False)
                    found.append((s.st_mtime_ns, PREFIX + entry.name, s.st_size))
        for _, digest, size in sorted(found):
            self._sizes[digest] = size
            self._total += _cost(size)
        with self._lock:
            self._shrink()

    # -- use ----------------------------------------------------------------------------------------
    def lease(self, room: int = MOST) -> Lease:
        return Lease(self, room)

    @contextlib.contextmanager
    def leased(self, room: int = MOST) -> Iterator[Lease]:
        """For as long as the block takes."""
        lease = self.lease(room)
        try:
            yield lease
        finally:
            lease.close()

    def take_up(self, digest: str, lease: Lease) -> bool:
        with self._lock:
            if digest not in self._sizes:
                return False
            self._sizes.move_to_end(digest)
            self._hold(digest, lease)
            return True

    def _hold(self, digest: str, lease: Lease) -> None:
        """Once, though threads of one build ask at the same time."""
        if digest not in lease.held:
            self._held[digest] += 1
            lease.held.add(digest)

    def take_up_root(self, root: str, lease: Lease) -> bool:
        with self._lock:
            digests = self._roots.get(root)
            if digests is None:
                return False
            self._roots.move_to_end(root)
            fresh = digests - lease.held
            self._held.update(fresh)
            lease.held |= fresh
            lease.roots.add(root)
            for digest in digests:
                self._sizes.move_to_end(digest)
            return True

    def remember_root(self, root: str, lease: Lease, digests: frozenset[str]) -> None:
        with self._lock:
            lease.roots.add(root)
            if digests <= lease.held:
                self._roots[root] = digests
                while len(self._roots) > MAX_ROOTS:
                    self._roots.popitem(last=False)

    def let_go(self, lease: Lease) -> None:
        with self._lock:
            for digest in lease.held:
                self._held[digest] -= 1
                if not self._held[digest]:
                    del self._held[digest]
            lease.held.clear()
            lease.roots.clear()
            self._shrink()

    def size_of(self, digest: str) -> int | None:
        """Bytes; None: it is not here."""
        return self._sizes.get(digest)

    def path(self, digest: str) -> str:
        return os.path.join(self._folder, place(digest))

    def read(self, digest: str, limit: int = MAX_TREE) -> bytes:
        """A small object's bytes, verified. Raises NotFound, Damaged."""
        try:
            with open(self.path(digest), "rb") as file:
                data = file.read(limit + 1)
        except FileNotFoundError as error:
            raise NotFound(f"no object {digest[:19]} of a build context") from error
        if len(data) > limit:
            raise Damaged(f"an object of the build context has more than {limit} bytes")
        if PREFIX + hashlib.sha256(data).hexdigest() != digest:
            self.remove(digest)
            raise Damaged(
                f"object {digest[:19]} of a build context is not what it was any more", hint="Build again"
            )
        return data

    def tree(self, digest: str) -> Tree:
        """Raises NotFound, Damaged."""
        return decode(self.read(digest))

    # -- arrival ------------------------------------------------------------------------------------
    def new(self) -> Arriving:
        """An object whose digest is known once it is written. Raises Exhausted."""
        number = next(self._numbers)
        return Arriving(self, os.path.join(self._folder, "new", str(number % _NEW), str(number)))

    def put(self, data: bytes, lease: Lease) -> str:
        """Its digest. Raises Exhausted."""
        with self.new() as arriving:
            arriving.write(data)
            return arriving.keep(lease)

    def accept(self, path: str, digest: str, size: int, lease: Lease) -> bool:
        """A file of `new` that was verified becomes an object; whether it has: there may be one already.
        Raises OSError."""
        with self._lock:
            fresh = digest not in self._sizes
            if fresh:
                os.rename(path, self.path(digest))
                self._sizes[digest] = size
                self._total += _cost(size)
            self._sizes.move_to_end(digest)
            self._hold(digest, lease)
            self._shrink()
            return fresh

    # -- going --------------------------------------------------------------------------------------
    def prune(self, keep: int = 0) -> int:
        """Bytes that are free again: of what no build holds, until `keep` bytes are left."""
        with self._lock:
            before = self._total
            self._shrink(keep)
            return before - self._total

    def remove(self, digest: str) -> None:
        """One that is no good, whoever holds it."""
        with self._lock:
            self._drop(digest)

    def _shrink(self, limit: int | None = None) -> None:
        limit = self._limit if limit is None else limit
        if self._total <= limit:
            return
        for digest in list(self._sizes):
            if self._total <= limit:
                return
            if digest not in self._held:
                self._drop(digest)

    def _drop(self, digest: str) -> None:
        size = self._sizes.pop(digest, None)
        if size is not None:
            self._total -= _cost(size)
            self.whole.clear()
            self._roots.clear()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path(digest))


class Arriving:
    """A file being written. As a block it leaves nothing behind that was not kept."""

    def __init__(self, objects: Objects, path: str) -> None:
        self._objects = objects
        self._path = path
        self._hasher = hashlib.sha256()
        self.size = 0
        self._gone = False
        with _full():
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, data: bytes) -> None:
        """Raises Exhausted."""
        with _full():
            write_all(self._fd, data)
        self._hasher.update(data)
        self.size += len(data)

    def zeros(self, count: int) -> None:
        """A hole of so many bytes."""
        self.size += count
        with _full():
            os.ftruncate(self._fd, self.size)
            os.lseek(self._fd, self.size, os.SEEK_SET)
        while count:
            step = min(count, len(_ZEROS))
            self._hasher.update(_ZEROS[:step])
            count -= step

    @property
    def digest(self) -> str:
        return PREFIX + self._hasher.hexdigest()

    def keep(self, lease: Lease, expected: str = "") -> str:
        """It is an object now, held by the lease. Raises Damaged when it is not the expected one."""
        digest = self.digest
        if expected and digest != expected:
            raise Damaged(f"an object of the build context came as {digest[:19]}…, not as {expected[:19]}…")
        with _full():
            self._gone = self._objects.accept(self._path, digest, self.size, lease)
        return digest

    def __enter__(self) -> Arriving:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._fd)
        if not self._gone:
            os.unlink(self._path)


_ZEROS = bytes(1 << 20)


def room_in(folder: str, most: int = MOST) -> int:
    """Bytes that a build may receive: what is free, less a reserve, and no more than `most`."""
    free = os.statvfs(folder)
    return max(0, min(most, free.f_bavail * free.f_frsize * 95 // 100 - RESERVE))


@contextlib.contextmanager
def _full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Exhausted(f"no space for the build context: {error.strerror}") from error


def _cost(size: int) -> int:
    return -(-max(size, 1) // _CLUSTER) * _CLUSTER


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
