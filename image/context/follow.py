"""Links on the way to what a COPY names: where they lead, so that it is scanned too.

Docker follows a link that a source names, or leads through, inside of the context; links that are merely
found in a copied folder stay links. Invariants: nothing above the context's top is looked at; a loop ends.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from typing import Protocol

from image.context.names import pattern_of
from image.context.wish import parts_of

MAX_LINKS = 40
"""On the way of one source: path_resolution(7)."""
MAX_LOOKED = 200_000
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Place(Protocol):
    """A folder to look into. Methods raise OSError for what can't be looked at: the scan tells of that, if it
    is to be sent."""

    def names(self) -> list[bytes]: ...

    def target(self, name: bytes) -> bytes | None:
        """Of a link; None of anything else."""
        ...

    def enter(self, name: bytes) -> Place: ...

    def close(self) -> None: ...


class OpenFolder:
    """An open folder, which is closed with it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def names(self) -> list[bytes]:
        return [os.fsencode(name) for name in os.listdir(self._fd)]

    def target(self, name: bytes) -> bytes | None:
        if not stat.S_ISLNK(os.lstat(name, dir_fd=self._fd).st_mode):
            return None
        return os.readlink(name, dir_fd=self._fd)

    def enter(self, name: bytes) -> OpenFolder:
        return OpenFolder(os.open(name, _FLAGS, dir_fd=self._fd))

    def close(self) -> None:
        os.close(self._fd)


def followed(top: Place, sources: Iterable[str]) -> list[list[bytes]]:
    """The sources' names (see `wish.parts_of`), and those of what links on their way lead to. Everything
    ([[]]) when it would be too much to look at. `top` stays open."""
    search = _Search(top)
    for source in sources:
        search.add(parts_of(source), 0)
    try:
        search.run()
    except _TooMuch:
        return [[]]
    return list(search.found.values())


class _TooMuch(Exception):
    pass


class _Search:
    def __init__(self, top: Place) -> None:
        self._top = top
        self._waiting: list[tuple[list[bytes], int]] = []
        self._looked = 0
        self.found: dict[tuple[bytes, ...], list[bytes]] = {}

    def add(self, parts: list[bytes], links: int) -> None:
        if links <= MAX_LINKS and tuple(parts) not in self.found:
            self.found[tuple(parts)] = parts
            self._waiting.append((parts, links))

    def run(self) -> None:
        while self._waiting:
            parts, links = self._waiting.pop()
            self._walk(self._top, [], parts, links)

    def _walk(self, place: Place, here: list[bytes], rest: Sequence[bytes], links: int) -> None:
        if not rest:
            return
        part, rest = rest[0], rest[1:]
        if part == b"..":  # of a link: what it leads through stays asked for, by the pattern that it is in
            self.add([*here[:-1], *rest], links)
            return
        pattern = pattern_of(part)
        if pattern.deep:
            return  # whatever it finds is scanned; links in there stay links
        for name in self._names(place) if pattern.magic else [part]:
            self._looked += 1
            if self._looked > MAX_LOOKED:
                raise _TooMuch
            if pattern.fits(name):
                self._step(place, here, name, rest, links)

    def _names(self, place: Place) -> list[bytes]:
        try:
            return place.names()
        except OSError:
            return []

    def _step(self, place: Place, here: list[bytes], name: bytes, rest: Sequence[bytes], links: int) -> None:
        try:
            target = place.target(name)
            below = place.enter(name) if target is None and rest else None
        except OSError:
            return
        if target is not None:
            above = [] if target.startswith(b"/") else here
            parts = [part for part in target.split(b"/") if part not in (b"", b".")]
            self.add([*above, *parts, *rest], links + 1)
        elif below is not None:
            try:
                self._walk(below, [*here, name], rest, links)
            finally:
                below.close()
