"""A layer's directory onto a tree, its whiteouts applied: for drivers without a union of directories.

Files share blocks with the layer's where the file system can (FICLONE). Invariant: what overlayfs would show
of the same layers is what stands in the tree at the end.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Sequence

from model.errors import Exhausted, Internal

_FICLONE = 0x40049409
_OPAQUE = "trusted.overlay.opaque"
_PIECE = 1 << 24


def copy_layers(layers: Sequence[str], target: str, driver: str) -> None:
    """`layers` are directories, bottom first. Raises Exhausted, Internal; what was copied by then stays."""
    try:
        for layer in layers:
            _Copy(layer, target).run()
    except OSError as error:
        raise failure(error, f"copy of an image to {target}", driver) from error


def failure(error: OSError, what: str, driver: str) -> Exhausted | Internal:
    """The error for people."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Exhausted(f"no space left for a copy of the image (storage driver {driver})")
    return Internal(f"{what} failed: {error}")


class _Copy:
    """One layer onto what is already in `target`, with its whiteouts applied."""

    def __init__(self, layer: str, target: str) -> None:
        self._layer = layer
        self._target = target
        self._linked: dict[int, str] = {}
        self._times: list[tuple[str, os.stat_result]] = []

    def run(self) -> None:
        for base, folders, files in os.walk(self._layer):
            place = os.path.join(self._target, os.path.relpath(base, self._layer))
            here = os.lstat(base)
            self._folder(base, place, here)
            for name in files + [n for n in folders if os.path.islink(os.path.join(base, n))]:
                self._file(os.path.join(base, name), os.path.join(place, name))
        for place, status in reversed(self._times):
            os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _folder(self, source: str, place: str, status: os.stat_result) -> None:
        hides = _OPAQUE in os.listxattr(source, follow_symlinks=False)
        if os.path.lexists(place) and source != self._layer and (hides or not _is_folder(place)):
            _remove(place)
        if not os.path.lexists(place):
            os.mkdir(place, 0o700)
        self._times.append((place, status))
        _attributes(source, place, status)

    def _file(self, source: str, place: str) -> None:
        status = os.lstat(source)
        _remove(place)
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            return
        twin = self._linked.get(status.st_ino) if status.st_nlink > 1 else None
        if twin is not None:
            os.link(twin, place, follow_symlinks=False)
            return
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(source), place)
        elif stat.S_ISREG(status.st_mode):
            _content(source, place, status.st_size)
        else:
            os.mknod(place, stat.S_IFMT(status.st_mode) | 0o600, status.st_rdev)
        _attributes(source, place, status)
        os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)
        self._linked[status.st_ino] = place


def _content(source: str, place: str, size: int) -> None:
    out = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        into = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            try:
                fcntl.ioctl(out, _FICLONE, into)
            except OSError:
                offset = 0
                while offset < size and (sent := os.sendfile(out, into, offset, _PIECE)):
                    offset += sent
        finally:
            os.close(into)
    finally:
        os.close(out)


def _attributes(source: str, place: str, status: os.stat_result) -> None:
    """Owner first (it clears setuid), then xattrs, mode."""
    os.chown(place, status.st_uid, status.st_gid, follow_symlinks=False)
    for key in os.listxattr(source, follow_symlinks=False):
        if not key.startswith("trusted."):
            value = os.getxattr(source, key, follow_symlinks=False)
            os.setxattr(place, key, value, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(place, stat.S_IMODE(status.st_mode))


def _is_folder(path: str) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)


def _remove(path: str) -> None:
    if not os.path.lexists(path):
        return
    if _is_folder(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)
