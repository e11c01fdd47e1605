"""The host's end of a client's context: asks for its tree, then for the objects that are not here yet.

Objects come in the order in which they were asked for, large ones in pieces; each is on disk, verified,
before it has its name. A file that changed since it was scanned is scanned again, a bounded number of times.
Invariant: on return every object below the root is here, held by the lease, and checked.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Protocol

from aio.supervisor import in_thread
from image.context.objects import Arriving, Lease, Objects, room_in
from image.context.sinks import tar_into
from image.context.survey import lacking
from image.digest import check
from image.spool import spool
from model.build import Object, Scanned
from model.contexttree import MAX_TREE, digest_of, patched
from model.errors import Damaged, InvalidInput

MAX_WANT = 20_000
"""Digests of one Want: 1.5 MB."""
MAX_ROUNDS = 1024
ATTEMPTS = 5
_GROUP_BYTES, _GROUP = 4 << 20, 512
"""What is written by one hop into a thread."""

Moved = Callable[[int], None]
"""Bytes of objects that have come so far."""


class Asked(Protocol):
    """The client's end. `want` yields the objects' pieces as they come; both raise its connection's
    errors."""

    async def scan(self, context: str, paths: Sequence[str]) -> Scanned: ...

    def want(self, context: str, digests: Sequence[str]) -> AsyncIterator[Object]: ...


class Warnings(Protocol):
    def __call__(self, warnings: tuple[str, ...], /) -> None: ...


async def received(
    asked: Asked,
    objects: Objects,
    lease: Lease,
    context: str = "",
    paths: Sequence[str] = (),
    *,
    moved: Moved = lambda _: None,
    warned: Warnings = lambda _: None,
) -> str:
    """The digest of the context's root tree, of what `paths` name. Raises the client's errors, Damaged,
    Exhausted, InvalidInput."""
    gone = ""
    bringing = _Bringing(asked, objects, lease, context, moved)
    for _ in range(ATTEMPTS):
        scanned = await asked.scan(context, paths)
        if scanned.error is not None:
            raise scanned.error.to_error()
        gone = await bringing.bring(check(scanned.root, "build context"))
        if not gone:
            warned(scanned.warnings)
            return scanned.root
    raise InvalidInput(
        f"{gone[:400]} of the build context changed each of {ATTEMPTS} times while it was being sent",
        hint="Build when nothing writes to it, or leave it out by a .dockerignore file",
    )


async def streamed(
    chunks: AsyncIterator[bytes],
    objects: Objects,
    lease: Lease,
    *,
    moved: Moved = lambda _: None,
    warned: Warnings = lambda _: None,
) -> str:
    """The root's digest of a context that comes as one tar. It is read from a file, so that its pace is the
    client's. Raises Damaged, Exhausted, InvalidInput."""
    folder = Path(objects.folder, "new")
    async with spool(chunks, folder, limit=room_in(os.fspath(folder)), progress=moved) as path:
        root, warnings = await in_thread(_unpacked, objects, lease, path)
    warned(tuple(warnings))
    return str(root)


def _unpacked(objects: Objects, lease: Lease, path: Path) -> tuple[str, Sequence[str]]:
    with open(path, "rb") as file:
        return tar_into(objects, lease, file)


class _Bringing:
    def __init__(self, asked: Asked, objects: Objects, lease: Lease, context: str, moved: Moved) -> None:
        self._asked = asked
        self._objects = objects
        self._lease = lease
        self._context = context
        self._moved = moved
        self._size = 0
        self._patches: set[str] = set()

    async def bring(self, root: str) -> str:
        """What is below the root; empty, or the name of a file that changed meanwhile."""
        for _ in range(MAX_ROUNDS):
            lack = await in_thread(lacking, self._objects, self._lease, root)
            if not lack:
                return ""
            for digests, limit in ((lack.trees, MAX_TREE), (lack.files, 1 << 62)):
                for start in range(0, len(digests), MAX_WANT):
                    gone = await self._want(digests[start : start + MAX_WANT], limit)
                    if gone:
                        return gone
        raise Damaged("the build context is deeper than it may be")

    async def _want(self, digests: Sequence[str], limit: int) -> str:
        """All of them, or the name of the first that can't be had any more."""
        writer = _Writer(self._objects, self._lease, digests, limit, self._patches)
        try:
            group: list[Object] = []
            size = 0
            async for piece in self._asked.want(self._context, digests):
                group.append(piece)
                size += len(piece.data)
                if size >= _GROUP_BYTES or len(group) >= _GROUP or piece.gone:
                    if gone := await in_thread(writer.take, group):
                        return str(gone)
                    self._tell(size)
                    group, size = [], 0
            gone = await in_thread(writer.take, group)
            self._tell(size)
            if not gone:
                writer.ended()
            return str(gone)
        finally:
            writer.close()

    def _tell(self, size: int) -> None:
        self._size += size
        self._moved(self._size)


class _Writer:
    """Pieces into objects, in the order asked for. Blocking."""

    def __init__(
        self, objects: Objects, lease: Lease, digests: Sequence[str], limit: int, patches: set[str]
    ) -> None:
        self._objects = objects
        self._lease = lease
        self._digests = digests
        self._limit = limit
        self._patches = patches
        """Trees that came as changes, in this scan or before."""
        self._next = 0
        self._arriving: Arriving | None = None

    def take(self, group: Sequence[Object]) -> str:
        for piece in group:
            if piece.gone:
                return piece.gone
            if self._next >= len(self._digests) or piece.digest != self._digests[self._next]:
                raise Damaged("the client sent an object of the build context that was not asked for")
            self._lease.take(len(piece.data))
            if piece.base:
                self._patched(piece)
                continue
            arriving = self._arriving
            if arriving is None:
                arriving = self._arriving = self._objects.new()
            arriving.write(piece.data)
            if arriving.size > self._limit:
                raise Damaged(f"a tree of the build context has more than {self._limit} bytes")
            if piece.last:
                arriving.keep(self._lease, piece.digest)
                self._next += 1
                self.close()
        return ""

    def _patched(self, piece: Object) -> None:
        """A tree by its change. If that does not make it, it stays wanted, and comes whole the next time."""
        asked_whole = piece.digest in self._patches
        self._patches.add(piece.digest)
        if asked_whole or self._arriving is not None or self._limit > MAX_TREE or not piece.last:
            raise Damaged("the client sent a change where a whole object of the build context was wanted")
        self._next += 1
        if self._lease.hold(check(piece.base, "base of a tree")):
            data = patched(self._objects.tree(piece.base), piece.data)
            if len(data) <= MAX_TREE and digest_of(data) == piece.digest:
                self._lease.take(len(data))
                self._objects.put(data, self._lease)

    def ended(self) -> None:
        if self._next < len(self._digests):
            raise Damaged("the client sent less of the build context than was asked for")

    def close(self) -> None:
        if self._arriving is not None:
            self._arriving.close()
            self._arriving = None
