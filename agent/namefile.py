"""The writer of the file that a host's resolver serves: whole at first, then by what changed.

Invariant: what the file says is the last state that was put; where it may not be (a write that failed, a file
that somebody else made), the next one is written whole, aside and renamed.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from net.resolver import statefile
from net.resolver.change import StateChange, Step, diff
from net.resolver.drop import USER
from net.resolver.serve import STATE
from net.resolver.state import ResolverState
from net.resolver.statefile import Mark

LEAST = 1 << 16
"""Bytes of changes that are not worth a new file."""


class NameFile:
    """Of a resolver's folder, which need not be there yet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._state: ResolverState | None = None
        self._begun = 0
        self._inode = 0
        self.mark = Mark()

    def adopt(self) -> bool:
        """Go on with the file that is there, if one is that makes sense."""
        try:
            with open(self._folder / STATE, "rb") as file:
                data, inode = file.read(), os.fstat(file.fileno()).st_ino
        except OSError:
            return False
        found = statefile.read(data)
        if found.refused or found.mark.size != len(data) or not data.endswith(b"\n"):
            return False
        self._state, self.mark, self._inode = found.state, found.mark, inode
        self._begun = data.find(b"\n") + 1
        return True

    def put(self, state: ResolverState, step: Step | None = None, *, anew: bool = False) -> None:
        """Nothing is written where nothing changed, all of it with `anew`. `step` saves comparing where it
        leads here from what the file says. Raises OSError."""
        before, self._state = self._state, None
        if before is None or anew:
            self._begin(state)
        elif not (change := _change(before, state, step)).empty:
            line = statefile.line(change)
            heavy = self.mark.size - self._begun + len(line) > max(LEAST, self._begun)
            if heavy or not self._append(line):
                self._begin(state)
        self._state = state

    def _append(self, line: bytes) -> bool:
        """False when the file is not as we left it. Raises OSError."""
        try:
            fd = os.open(self._folder / STATE, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        try:
            found = os.fstat(fd)
            if (found.st_ino, found.st_size) != (self._inode, self.mark.size):
                return False
            if os.write(fd, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(fd)
        self.mark = Mark(first=self.mark.first, size=self.mark.size + len(line))
        return True

    def _begin(self, state: ResolverState) -> None:
        data, mark = statefile.whole(state)
        self._inode = write_state(self._folder, data)
        self.mark, self._begun = mark, mark.size


def _change(before: ResolverState, state: ResolverState, step: Step | None) -> StateChange:
    return step.change if step is not None and step.before is before else diff(before, state)


def prepare(folder: Path) -> None:
    """The folder, which the resolver's user may read and not write. Idempotent."""
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    if os.geteuid() == 0:
        os.chown(folder, 0, USER)


def write_state(folder: Path, data: bytes) -> int:
    """Whole or not at all; readable for the resolver's user. The file's inode. Raises OSError."""
    prepare(folder)
    aside = folder / f"{STATE}.new"
    with open(aside, "wb") as file:
        if os.geteuid() == 0:
            os.fchown(file.fileno(), 0, USER)
        os.fchmod(file.fileno(), 0o640)
        file.write(data)
        inode = os.fstat(file.fileno()).st_ino
    os.replace(aside, folder / STATE)
    return inode
