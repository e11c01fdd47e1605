"""Build contexts for tests: folders by a table, and a client and a host with a counted wire between them."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from image.context.here import Contexts
from image.context.objects import LIMIT, Lease, Objects
from image.context.receive import received
from image.context.serve import Source
from model.build import Object, Scan, Scanned, Want
from model.contexttree import Entry


def grow(top: Path, files: Mapping[str, bytes | str | None]) -> Path:
    """Content: bytes; a link's target: text; None: a folder."""
    top.mkdir(exist_ok=True)
    for name, content in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir(exist_ok=True)
        elif isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)
    return top


def age(top: Path, seconds: float = 60.0) -> None:
    """All of it, as if it had been written so long ago (but for the times that the kernel sets)."""
    for base, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = os.path.join(base, name)
            status = os.lstat(path)
            past = status.st_mtime_ns - int(seconds * 1e9)
            os.utime(path, ns=(past, past), follow_symlinks=False)


def bound_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.fspath(path))


class Wire:
    """A client's contexts as a host sees them. `before`: called before each object goes out."""

    def __init__(self, contexts: Contexts, before: Callable[[Object], None] = lambda _: None) -> None:
        self._contexts = contexts
        self._before = before
        self.bytes = 0
        """Both ways."""
        self.scans = 0
        self.objects: list[str] = []

    async def scan(self, context: str, paths: Sequence[str]) -> Scanned:
        self.scans += 1
        asked = Scan(ask=self.scans, context=context, paths=tuple(paths))
        found = await self._contexts.scanned(asked)
        self._count(asked, found)
        return found

    async def want(self, context: str, digests: Sequence[str]) -> AsyncIterator[Object]:
        want = Want(ask=1, context=context, digests=tuple(digests))
        self._count(want)
        async for piece in self._contexts.objects(want):
            self._before(piece)
            self._count(piece)
            self.objects += [piece.digest] if piece.last else []
            yield piece

    def _count(self, *messages: object) -> None:
        self.bytes += sum(4 + len(msgspec.msgpack.encode(message)) for message in messages)


def store(folder: Path, *, limit: int = LIMIT) -> Objects:
    objects = Objects(folder, limit=limit)
    objects.open()
    return objects


def wire(source: Source, before: Callable[[Object], None] = lambda _: None) -> Wire:
    return Wire(Contexts({"": source}), before)


async def brought(source: Source, objects: Objects, lease: Lease, *paths: str) -> str:
    return await received(wire(source), objects, lease, paths=paths)


def listed(objects: Objects, root: str) -> dict[str, Entry]:
    """By path, of all below."""
    found: dict[str, Entry] = {}
    for entry in objects.tree(root).entries:
        name = os.fsdecode(entry.name)
        found[name] = entry
        if entry.kind == "tree":
            found |= {f"{name}/{below}": one for below, one in listed(objects, entry.digest).items()}
    return found


def content(objects: Objects, root: str) -> dict[str, bytes | str | None]:
    """As `grow` takes it."""
    return {
        name: None
        if entry.kind == "tree"
        else os.fsdecode(entry.target)
        if entry.kind == "link"
        else Path(objects.path(entry.digest)).read_bytes()
        for name, entry in listed(objects, root).items()
        if entry.kind != "fifo"
    }


class Dripping(io.RawIOBase):
    """A pipe whose other end writes three bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        part, self._data = self._data[:3], self._data[3:]
        buffer[: len(part)] = part
        return len(part)
