"""Mount points in the files of a step: made where they are missing, and taken away again without a trace.

The files are a stranger's, and the step may change them at will: a link may stand wherever a folder was
(CVE-2024-23652). So nothing is found again by its path afterwards: the folders in which something was made
are held open, and in them goes what is still the same and still empty. Invariants: nothing outside the root
is made or removed; a folder that the step did not touch itself has its old times again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Sequence
from typing import NamedTuple

from agent.inroot import openat2
from model.errors import InvalidInput

MAX_LINKS = 40
"""That a path may lead through: path_resolution(7)."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def lead(root: int, path: str) -> list[str]:
    """The names on the way to where `path` leads, links followed within the open directory `root`. What is
    missing is taken as it is written, also behind a link: that is where the runtime would make it. Raises
    OSError."""
    rest = _parts(path)
    place: list[str] = []
    links = 0
    while rest:
        name = rest.pop()
        if name == "..":
            place = place[:-1]
            continue
        to = _link(root, "/" + "/".join([*place, name]))
        if to is None:
            place.append(name)
            continue
        links += 1
        if links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        rest += _parts(to)
        place = [] if to.startswith("/") else place
    return place


def _parts(path: str) -> list[str]:
    """The last one first."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


def _link(root: int, path: str) -> str | None:
    try:
        fd = openat2(root, path, os.O_PATH | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        return os.readlink("", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)


class _Made(NamedTuple):
    parent: int
    """Descriptor."""
    name: str
    ident: tuple[int, int]
    folder: bool


class _Touched(NamedTuple):
    fd: int
    atime_ns: int
    mtime_ns: int
    """Before."""
    after_ns: int
    """The mtime that our making left."""


class Stubs:
    """Of one step on the files at `root`, which nobody else changes meanwhile. `close` must be called."""

    def __init__(self, root: str) -> None:
        self._root = os.open(root, _FOLDER)
        self._made: list[_Made] = []
        self._touched: dict[tuple[int, int], _Touched] = {}
        self._open: list[int] = [self._root]

    def make(self, target: str, *, folder: bool, plain: bool = False) -> str:
        """Have a folder, or else a file, where `target` leads, links followed within the root. Gives that
        place, free of links. `plain`: no link may be on the way. Raises InvalidInput when something else
        stands there."""
        try:
            parts = lead(self._root, target)
            place = "/" + "/".join(parts)
            if plain and place != target:
                raise OSError(errno.ELOOP, "a link stands there")
            self._make(parts, folder=folder)
        except OSError as error:
            raise InvalidInput(f"mount target {target[:200]} in the image: {error.strerror}") from error
        return place

    def _make(self, parts: Sequence[str], *, folder: bool) -> None:
        here = self._root
        for number, name in enumerate(parts, 1):
            wanted = folder or number < len(parts)
            try:
                mode = os.stat(name, dir_fd=here, follow_symlinks=False).st_mode
            except FileNotFoundError:
                mode = self._new(here, name, folder=wanted)
            if stat.S_ISDIR(mode) is not wanted:
                stands, comes = ("a file", "a folder") if wanted else ("a folder", "a file")
                raise OSError(errno.ENOTDIR, f"{stands} stands there, and {comes} is mounted on it")
            if wanted:
                here = os.open(name, _FOLDER, dir_fd=here)
                self._open.append(here)

    def _new(self, here: int, name: str, *, folder: bool) -> int:
        before = os.fstat(here)
        if folder:
            os.mkdir(name, 0o755, dir_fd=here)
        else:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=here))
        status = os.stat(name, dir_fd=here, follow_symlinks=False)
        self._made.append(_Made(here, name, (status.st_dev, status.st_ino), folder))
        key = (before.st_dev, before.st_ino)
        first = self._touched.get(key) or _Touched(here, before.st_atime_ns, before.st_mtime_ns, 0)
        self._touched[key] = first._replace(after_ns=os.fstat(here).st_mtime_ns)
        return status.st_mode

    def close(self) -> None:
        """Take away what is still as it was made; what the step put something into stays. Idempotent."""
        left = {touched.fd: os.fstat(touched.fd) for touched in self._touched.values()}
        for made in reversed(self._made):
            with contextlib.suppress(OSError):  # it holds something now, or is gone
                _remove(made)
        for touched in self._touched.values():
            status = left[touched.fd]
            quiet = status.st_mtime_ns == touched.after_ns
            now = (status.st_atime_ns, status.st_mtime_ns)
            with contextlib.suppress(OSError):  # the folder was one of ours, and went
                os.utime(touched.fd, ns=(touched.atime_ns, touched.mtime_ns) if quiet else now)
        for fd in self._open:
            os.close(fd)
        self._open, self._made, self._touched = [], [], {}


def _remove(made: _Made) -> None:
    status = os.stat(made.name, dir_fd=made.parent, follow_symlinks=False)
    if (status.st_dev, status.st_ino) != made.ident:
        return
    if made.folder:
        os.rmdir(made.name, dir_fd=made.parent)
    elif status.st_size == 0:
        os.unlink(made.name, dir_fd=made.parent)
