"""A tar into a directory of a container, in its own root.

As Docker's: what stands there is replaced, but a directory by a file, or a file by a directory, only where
that is wished; directories are merged. Invariants: a name that climbs out of the directory is refused; links
in the container are followed as the container would, never those of /proc that lead to another place.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from agent.files.out import missing
from agent.inroot import openat2
from aio.deletion import delete
from image.extract import MAX_ID, pour
from image.tarstream import Member, TarReader
from image.tarwriter import xattr_key
from image.walk import look, shown
from model.errors import Damaged, Exhausted, InvalidInput

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_FULL = (errno.ENOSPC, errno.EDQUOT)


def destination(path: str, container: str, *, read_only: bool) -> int:
    """The open directory that a path leads to. Raises NotFound, InvalidInput; also where it can't be written
    to. `read_only`: its root is, though this process might write."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        top = openat2(root, path, os.O_PATH)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise missing(path, container) from error
        raise InvalidInput(f"{path}: {error.strerror}") from error
    if not stat.S_ISDIR(os.fstat(top).st_mode):
        raise InvalidInput("extraction point is not a directory")
    os.close(top)
    top = openat2(root, path, _FOLDER)
    in_root = _on_root(root, path)
    if in_root and read_only:
        raise InvalidInput("container rootfs is marked read-only")
    if os.fstatvfs(top).f_flag & os.ST_RDONLY:
        what = "container rootfs" if in_root else "mounted volume"
        raise InvalidInput(f"{what} is marked read-only")
    return top


def _on_root(root: int, path: str) -> bool:
    """Nothing is mounted on the way to it."""
    try:
        os.close(openat2(root, path, os.O_PATH, one_mount=True))
    except OSError as error:
        return error.errno != errno.EXDEV
    return True


class Placer:
    """`top` is an open directory. `replace`: what is of another kind gives way, with all that is in it."""

    def __init__(self, top: int, *, replace: bool = False) -> None:
        self._top = top
        self._replace = replace
        self._parent: tuple[tuple[bytes, ...], int] = ((), os.dup(top))
        self._times: dict[bytes, int] = {}
        """Of directories, set last."""

    def run(self, reader: TarReader) -> None:
        """Raises Damaged, Exhausted, InvalidInput; what came before stays."""
        for member in reader:
            with _named(member.name):
                self._one(member, reader)
        for name, mtime in reversed(self._times.items()):
            try:
                fd = openat2(self._top, os.fsdecode(name), _FOLDER, in_root=False)
            except OSError:  # the container took it away
                continue
            os.utime(fd, ns=(mtime, mtime))
            os.close(fd)

    def _one(self, member: Member, reader: TarReader) -> None:
        parts = _parts(member.name)
        if not parts:
            if member.kind != "dir":
                raise Damaged(f"tar: its top is a {member.kind}")
            return
        folder, name = self._folder(parts[:-1]), parts[-1]
        standing = look(folder, name)
        if standing is not None and stat.S_ISDIR(standing.st_mode) != (member.kind == "dir"):
            self._give_way(folder, name, member, standing)
            standing = None
        if member.kind == "dir":
            if standing is None:
                os.mkdir(name, 0o700, dir_fd=folder)
            fd = openat2(folder, os.fsdecode(name), _FOLDER | os.O_NOFOLLOW, in_root=False)
            try:
                _attributes(fd, member)
            finally:
                os.close(fd)
            self._times[b"/".join(parts)] = _mtime(member)
        elif member.kind == "file":
            self._file(folder, name, member, reader, standing)
        else:
            if standing is not None:
                os.unlink(name, dir_fd=folder)
            self._special(folder, name, member)

    def _give_way(self, folder: int, name: bytes, member: Member, standing: os.stat_result) -> None:
        if not stat.S_ISDIR(standing.st_mode):
            if not self._replace:
                raise InvalidInput(f"cannot overwrite non-directory {shown(member.name)} with directory")
            os.unlink(name, dir_fd=folder)
            return
        if not self._replace:
            raise InvalidInput(f"cannot overwrite directory {shown(member.name)} with non-directory")
        delete(name, folder)

    def _file(
        self, folder: int, name: bytes, member: Member, reader: TarReader, standing: os.stat_result | None
    ) -> None:
        flags = _NEW
        if standing is not None:
            try:
                os.unlink(name, dir_fd=folder)
            except OSError as error:
                if error.errno != errno.EBUSY or not stat.S_ISREG(standing.st_mode):
                    raise
                # Something is mounted on it, as on /etc/hosts: it stays the same file.
                flags = os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=folder)
        try:
            pour(fd, member, reader)
            _attributes(fd, member)
            os.utime(fd, ns=(_mtime(member), _mtime(member)))
        finally:
            os.close(fd)

    def _special(self, folder: int, name: bytes, member: Member) -> None:
        if member.kind == "hardlink":
            target = _parts(member.link)
            if not target:
                raise Damaged("tar: a hard link to its top")
            source = openat2(
                self._top,
                os.fsdecode(b"/".join((b".", *target[:-1]))),
                os.O_PATH | os.O_DIRECTORY,
                in_root=False,
            )
            try:
                os.link(target[-1], name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
            finally:
                os.close(source)
            return
        if member.kind == "symlink":
            os.symlink(member.link, name, dir_fd=folder)
        elif member.kind == "fifo":
            os.mkfifo(name, 0o600, dir_fd=folder)
        else:
            if member.device == (0, 0):
                raise Damaged("tar: a device 0:0")
            kind = stat.S_IFCHR if member.kind == "char" else stat.S_IFBLK
            os.mknod(name, kind | 0o600, os.makedev(*member.device), dir_fd=folder)
        _check_owner(member)
        os.chown(name, member.uid, member.gid, dir_fd=folder, follow_symlinks=False)
        if member.kind != "symlink":
            os.chmod(name, member.mode, dir_fd=folder)
        os.utime(name, ns=(_mtime(member), _mtime(member)), dir_fd=folder, follow_symlinks=False)

    def _folder(self, parts: tuple[bytes, ...]) -> int:
        """The parent directory, made where missing; the last one is kept open for its next entry."""
        if self._parent[0] == parts:
            return self._parent[1]
        here = os.dup(self._top)
        try:
            for part in parts:
                below = self._step(here, part)
                os.close(here)
                here = below
        except BaseException:
            os.close(here)
            raise
        os.close(self._parent[1])
        self._parent = (parts, here)
        return here

    def _step(self, here: int, part: bytes) -> int:
        name = os.fsdecode(part)
        try:
            return openat2(here, name, _FOLDER, in_root=False)
        except FileNotFoundError:
            os.mkdir(part, 0o755, dir_fd=here)
            return openat2(here, name, _FOLDER | os.O_NOFOLLOW, in_root=False)


def _parts(name: bytes) -> tuple[bytes, ...]:
    """Raises Damaged for a name that climbs out."""
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise Damaged(f"tar: {shown(name)} leaves the directory")
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return tuple(parts)


def _attributes(fd: int, member: Member) -> None:
    """Owner first (it clears setuid), then attributes, mode."""
    _check_owner(member)
    os.fchown(fd, member.uid, member.gid)
    for key, value in member.xattrs.items():
        if xattr_key(key):
            try:
                os.setxattr(fd, key, value)
            except OSError as error:
                if error.errno != errno.ENOTSUP:  # a tmpfs has no attributes of users
                    raise
    os.fchmod(fd, member.mode)


def _check_owner(member: Member) -> None:
    if member.uid > MAX_ID or member.gid > MAX_ID:
        raise Damaged(f"tar: owner {member.uid}:{member.gid} is impossible")


def _mtime(member: Member) -> int:
    return max(-(1 << 31) * 10**9, min(member.mtime_ns, (1 << 33) * 10**9))


@contextmanager
def _named(name: bytes) -> Iterator[None]:
    """Errors of system calls as ours, with the member's name."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise Exhausted(f"no space left in the container for {shown(name)}") from error
        raise InvalidInput(f"{shown(name)}: {error.strerror}") from error
