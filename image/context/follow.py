"""Links on the way to what a COPY names: where they lead, so that it is scanned too.

Docker follows a link that a source names, or leads through, inside of the context; links that are merely
found in a copied folder stay links. Invariants: nothing above the context's top is looked at; a loop ends.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence

from image.context.names import pattern_of
from image.context.wish import parts_of

MAX_LINKS = 40
"""On the way of one source: path_resolution(7)."""
MAX_LOOKED = 200_000
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def followed(top: int, sources: Iterable[str]) -> list[list[bytes]]:
    """The sources' names (see `wish.parts_of`), and those of what links on their way lead to. Everything
    ([[]]) when it would be too much to look at."""
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
    def __init__(self, top: int) -> None:
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
            fd = os.dup(self._top)
            self._walk(fd, [], parts, links)

    def _walk(self, fd: int, here: list[bytes], rest: Sequence[bytes], links: int) -> None:
        """Takes `fd` over, which is the folder `here`."""
        try:
            if not rest:
                return
            part, rest = rest[0], rest[1:]
            pattern = pattern_of(part)
            if pattern.deep:
                return  # whatever it finds is scanned; links in there stay links
            names = _names(fd) if pattern.magic else [part]
            for name in names:
                self._looked += 1
                if self._looked > MAX_LOOKED:
                    raise _TooMuch
                if pattern.fits(name):
                    self._step(fd, here, name, rest, links)
        finally:
            os.close(fd)

    def _step(self, fd: int, here: list[bytes], name: bytes, rest: Sequence[bytes], links: int) -> None:
        try:
            mode = os.lstat(name, dir_fd=fd).st_mode
            if stat.S_ISLNK(mode):
                target = os.readlink(name, dir_fd=fd)
                above = b"" if target.startswith(b"/") else b"/".join(here)
                self.add([*parts_of(os.fsdecode(above + b"/" + target)), *rest], links + 1)
            elif stat.S_ISDIR(mode) and rest:
                self._walk(os.open(name, _FLAGS, dir_fd=fd), [*here, name], rest, links)
        except OSError:
            return  # what can't be looked at is told of by the scan, if it is to be sent


def _names(fd: int) -> list[bytes]:
    try:
        return [os.fsencode(name) for name in os.listdir(fd)]
    except OSError:
        return []
