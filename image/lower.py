"""What the layers below say of a directory that a layer only implies.

A layer may hold `tmp/x` without `tmp/`. The directory that it needs covers the one below, so it must take
over that one's owner, mode, times and attributes, or /tmp would lose its sticky bit. Invariant: no link is
followed; nothing is written to them.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import NamedTuple

OPAQUE = "trusted.overlay.opaque"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Folder(NamedTuple):
    """Attributes of a directory."""

    status: os.stat_result
    xattrs: dict[str, bytes]


class LowerLayers:
    """`folders` are the layers' directories, top first; they are opened at once and stay open, also when the
    process changes its root."""

    def __init__(self, folders: Sequence[str]) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        self._layers = [os.open(folder, flags) for folder in folders]

    @property
    def fds(self) -> Sequence[int]:
        """The open directories, top first."""
        return self._layers

    def names(self) -> set[bytes]:
        """Of all that lies at the layers' tops, whiteouts too."""
        return {os.fsencode(name) for layer in self._layers for name in os.listdir(layer)}

    def close(self) -> None:
        for fd in self._layers:
            os.close(fd)

    def find(self, path: bytes) -> Folder | None:
        """The directory `path` as the stack shows it, if it shows one."""
        parts = [part for part in path.split(b"/") if part]
        for layer in self._layers:
            found, hides = _walk(layer, parts)
            if found is not None or hides:
                return found
        return None


def enter(top: int, parts: Sequence[bytes]) -> int:
    """Open the directory that `parts` lead to from the open directory `top`, which none of them leaves.
    Raises OSError, for what is no name, too."""
    for part in parts:
        if part in (b"", b".", b"..") or b"/" in part:
            raise OSError(errno.EINVAL, "not a name of a directory", os.fsdecode(part))
    here = os.dup(top)
    for part in parts:
        try:
            below = os.open(part, _FOLDER, dir_fd=here)
        finally:
            os.close(here)
        here = below
    return here


def _walk(layer: int, parts: Sequence[bytes]) -> tuple[Folder | None, bool]:
    """(the directory, whether this layer hides what is below it)."""
    here, hides = os.dup(layer), False
    try:
        for part in parts:
            try:
                below = enter(here, (part,))
            except FileNotFoundError:
                return None, hides
            except OSError:  # a whiteout, a link or a file: no directory, and none below shows through
                return None, True
            os.close(here)
            here = below
            hides = hides or OPAQUE in os.listxattr(here)
        xattrs = {key: os.getxattr(here, key) for key in os.listxattr(here) if key.startswith("user.")}
        return Folder(status=os.fstat(here), xattrs=xattrs), hides
    finally:
        os.close(here)


def hide_below(top: int, lower: LowerLayers) -> None:
    """Make a layer's open directory that hides all below it do so: overlayfs looks for the attribute in every
    directory but the top one, so that gets a whiteout for each name."""
    if OPAQUE not in os.listxattr(top):
        return
    status = os.fstat(top)
    for name in lower.names():
        try:
            os.mknod(name, stat.S_IFCHR | 0o600, os.makedev(0, 0), dir_fd=top)
        except FileExistsError:
            _make_opaque(top, name)
    os.utime(top, ns=(status.st_atime_ns, status.st_mtime_ns))


def _make_opaque(top: int, name: bytes) -> None:
    """If it is a directory."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    except OSError:
        return
    try:
        os.setxattr(fd, OPAQUE, b"y")
    finally:
        os.close(fd)


def copy_attributes(folder: Folder, fd: int) -> None:
    """Give them to an open directory: owner first, times last. Raises OSError."""
    status = folder.status
    os.chown(fd, status.st_uid, status.st_gid)
    for key, value in folder.xattrs.items():
        os.setxattr(fd, key, value)
    os.chmod(fd, stat.S_IMODE(status.st_mode))
    os.utime(fd, ns=(status.st_mtime_ns, status.st_mtime_ns))
