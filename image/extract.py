"""Members of a layer as files below the current root directory.

Whiteouts become what overlayfs understands: a 0:0 character device, an opaque xattr (OCI image-spec,
layer.md; kernel doc filesystems/overlayfs.rst). Invariants: a link of the layer itself where a parent should
be is followed, below the current root alone, as containerd and umoci do; the last part of a name is never
followed; of two members with one name the later stands; a whiteout hides only what the layers below have,
whatever its place in the archive.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from image.folders import Folders
from image.lower import OPAQUE
from image.tarstream import Member, TarReader
from model.errors import Damaged, Exhausted, Unsupported

WHITEOUT = b".wh."
HIDE_ALL = b".wh..wh..opq"
META = b".wh..wh."
MAX_DEPTH = 512
MAX_PART = 255
"""Bytes of one name; that of a whiteout may hold such a name."""
MAX_REMEMBERED = 128 << 20
"""Bytes for the folders' times: 400,000 folders of an honest layer."""
_ENTRY = 250
MAX_ID = (1 << 32) - 2
"""The largest user or group; 2^32 - 1 means "leave it" to chown."""
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Extractor:
    """`max_bytes` bounds the sum of the files' sizes. `owner`: of all that it makes, whatever the members
    say. `into`: as ADD unpacks. The directory was somebody's before, and stays as it is itself; names that
    climb out end at it; what a link leads to has to be there."""

    def __init__(
        self,
        *,
        whiteouts: bool,
        max_bytes: int,
        max_files: int,
        owner: tuple[int, int] | None = None,
        into: bool = False,
    ) -> None:
        self._whiteouts = whiteouts
        self._owner = owner
        self._into = into
        self._max_bytes = max_bytes
        self._max_files = max_files
        self.size = 0
        self.files = 0
        self._folders = Folders(self._imply, strict=into)
        self._times: dict[bytes, tuple[int, int]] = {}
        """Of folders, set last: (inode, ns)."""
        self.implied: dict[bytes, None] = {}
        """Folders that no member describes, a parent before what is in it; some may be gone again."""
        self._remembered = 0

    def run(self, reader: TarReader) -> None:
        """Raises Damaged, Exhausted."""
        if not self._into:
            self.implied[b"/"] = None
            self._times[b"/"] = (os.lstat(b"/").st_ino, 0)
        for member in reader:
            self.files += 1
            if self.files > self._max_files:
                raise Exhausted(f"the layer has more than the {self._max_files} files that there is room for")
            with _named(member.name):
                self._apply(member, reader)
        for path, (inode, mtime) in self._times.items():
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                if os.lstat(path).st_ino == inode:
                    os.utime(path, ns=(mtime, mtime), follow_symlinks=False)

    def _apply(self, member: Member, reader: TarReader) -> None:
        path = place(member.name, clamp=self._into)
        if path == b"/":
            if member.kind != "dir":
                raise Damaged(f"layer: its root is a {member.kind}")
            if not self._into:
                self._attributes(path, member)
            return
        if not self._whiteouts and b"/" + WHITEOUT in path:
            raise Unsupported(
                f"{_shown(member.name)} has a name that no layer can hold: .wh. marks removed files",
                hint="Leave it out of the tar, or rename it",
            )
        folder, name = os.path.split(path)
        folder = self._folders.find(folder)
        path = os.path.join(folder, name)
        if self._whiteouts and name.startswith(WHITEOUT):
            self._whiteout(folder, name)
        elif member.kind == "file":
            self._file(path, member, reader)
        elif member.kind == "dir":
            self._make_folder(path)
            self._attributes(path, member)
        else:
            self._special(path, member)

    # -- folders ------------------------------------------------------------------------------------
    def _imply(self, path: bytes) -> None:
        """Make a missing folder."""
        if path.count(b"/") > MAX_DEPTH:
            raise Damaged(f"layer: deeper than {MAX_DEPTH} folders")
        self._make_folder(path)
        self._remember(path)
        self.implied[path] = None

    def _remember(self, path: bytes) -> None:
        if path in self._times or path in self.implied:
            return
        self._remembered += len(path) + _ENTRY
        if self._remembered > MAX_REMEMBERED:
            raise Damaged("layer: more folders, with longer names, than an honest one has")

    def _make_folder(self, path: bytes) -> None:
        """A folder that is one already keeps its content; over a whiteout it hides what is below."""
        try:
            os.mkdir(path, 0o755)
            return
        except FileExistsError:
            status = os.lstat(path)
        if stat.S_ISDIR(status.st_mode):
            return
        os.unlink(path)
        self._folders.forget(path, status.st_mode)
        os.mkdir(path, 0o755)
        if _is_whiteout(status):
            os.setxattr(path, OPAQUE, b"y", follow_symlinks=False)

    def _make_room(self, path: bytes) -> None:
        """A later member replaces an earlier one."""
        mode = os.lstat(path).st_mode
        self._folders.forget(path, mode)
        if not stat.S_ISDIR(mode):
            os.unlink(path)
            return
        for base, folders, files, fd in os.fwalk(path, topdown=False):
            del base
            for name in files:
                os.unlink(name, dir_fd=fd)
            for name in folders:
                if stat.S_ISLNK(os.lstat(name, dir_fd=fd).st_mode):
                    os.unlink(name, dir_fd=fd)
                else:
                    os.rmdir(name, dir_fd=fd)
        os.rmdir(path)

    def _whiteout(self, folder: bytes, name: bytes) -> None:
        if name == HIDE_ALL:
            os.setxattr(folder, OPAQUE, b"y", follow_symlinks=False)
            return
        if name.startswith(META):
            return
        hidden = name[len(WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise Damaged(f"layer: a whiteout of {hidden.decode()!r}")
        target = os.path.join(folder, hidden)
        try:
            os.mknod(target, stat.S_IFCHR | 0o600, os.makedev(0, 0))
        except FileExistsError:
            if stat.S_ISDIR(os.lstat(target).st_mode):
                os.setxattr(target, OPAQUE, b"y", follow_symlinks=False)

    # -- files --------------------------------------------------------------------------------------
    def _file(self, path: bytes, member: Member, reader: TarReader) -> None:
        self.size += member.size
        if self.size > self._max_bytes:
            raise Exhausted(
                f"the layer's files need more than the {self._max_bytes} bytes that there is room for"
            )
        try:
            fd = os.open(path, _NEW, 0o600)
        except FileExistsError:
            self._make_room(path)
            fd = os.open(path, _NEW, 0o600)
        try:
            pour(fd, member, reader)
            self._attributes(fd, member)
        finally:
            os.close(fd)

    def _special(self, path: bytes, member: Member) -> None:
        try:
            self._make(path, member)
        except FileExistsError:
            self._make_room(path)
            self._make(path, member)
        if member.kind != "hardlink":
            self._attributes(path, member)
        elif self._into:
            self._named_again(path, member)

    def _make(self, path: bytes, member: Member) -> None:
        if member.kind == "symlink":
            os.symlink(member.link, path)
        elif member.kind == "hardlink":
            target = place(member.link, clamp=self._into)
            if target == path:
                raise Damaged("layer: a hard link to itself")
            if _is_whiteout(os.lstat(target)):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            os.link(target, path, follow_symlinks=False)
        elif member.kind == "fifo":
            os.mkfifo(path)
        elif member.kind == "char" and member.device == (0, 0):
            raise Damaged("layer: a device 0:0, which would hide a file of the layers below")
        else:
            kind = stat.S_IFCHR if member.kind == "char" else stat.S_IFBLK
            major, minor = member.device
            if major >= 1 << 12 or minor >= 1 << 20:
                raise Damaged(f"layer: device {major}:{minor} is impossible")
            os.mknod(path, kind | 0o600, os.makedev(major, minor))

    def _named_again(self, path: bytes, member: Member) -> None:
        """As Docker's: what a hard link's header says holds for the file. Only what differs is touched: a new
        owner would take a file's capabilities away."""
        status = os.lstat(path)
        owner = self._owner or (member.uid, member.gid)
        if stat.S_ISLNK(status.st_mode) or owner != (status.st_uid, status.st_gid):
            os.chown(path, *owner, follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            os.chmod(path, member.mode)
            mtime = max(-(1 << 31) * 10**9, min(member.mtime_ns, (1 << 33) * 10**9))
            os.utime(path, ns=(mtime, mtime))

    def _attributes(self, where: bytes | int, member: Member) -> None:
        """Of a path, or of an open file. Owner first (it clears setuid), then xattrs, mode, times."""
        if member.uid > MAX_ID or member.gid > MAX_ID:
            raise Damaged(f"layer: owner {member.uid}:{member.gid} is impossible")
        follow = isinstance(where, int)
        os.chown(where, *(self._owner or (member.uid, member.gid)), follow_symlinks=follow)
        for key, value in member.xattrs.items():
            if key == "security.capability" or (
                key.startswith("user.") and member.kind in ("file", "dir") and len(key) > 5
            ):
                _set_xattr(where, key, value, follow)
        if member.kind != "symlink":
            os.chmod(where, member.mode)
        mtime = max(-(1 << 31) * 10**9, min(member.mtime_ns, (1 << 33) * 10**9))
        if member.kind == "dir" and isinstance(where, bytes):
            self._remember(where)
            self._times[where] = (os.lstat(where).st_ino, mtime)
            self.implied.pop(where, None)
        else:
            os.utime(where, ns=(mtime, mtime), follow_symlinks=follow)


def place(name: bytes, *, clamp: bool = False) -> bytes:
    """An absolute path below the root, cleaned by its letters alone. Raises Damaged for names that climb out,
    which no honest layer has, unless they `clamp` to the root."""
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part in (b"", b"."):
            continue
        if part == b"..":
            if not parts and not clamp:
                raise Damaged(f"layer: {_shown(name)} leaves the layer")
            del parts[-1:]
            continue
        if len(part) > MAX_PART and not (part.startswith(WHITEOUT) and len(part) <= MAX_PART + len(WHITEOUT)):
            raise Damaged(f"layer: a name of more than {MAX_PART} bytes")
        parts.append(part)
    return b"/" + b"/".join(parts)


def pour(fd: int, member: Member, reader: TarReader) -> None:
    """A file's content into an open, empty file; holes stay holes."""
    if member.regions is None:
        for piece in reader.content():
            write_all(fd, piece)
        return
    for offset, piece in placed(member, reader):
        os.lseek(fd, offset, os.SEEK_SET)
        write_all(fd, piece)
    os.ftruncate(fd, member.size)


def placed(member: Member, reader: TarReader) -> Iterator[tuple[int, bytes]]:
    """A sparse file's bytes, each piece with its offset."""
    regions = iter(member.regions or ())
    offset = length = 0
    for piece in reader.content():
        while piece:
            if not length:
                offset, length = next(regions)
            part = piece[:length]
            yield offset, part
            offset, length, piece = offset + len(part), length - len(part), piece[len(part) :]


def write_all(fd: int, data: bytes) -> None:
    """All of it, in as many calls as it takes."""
    done = os.write(fd, data)
    while done < len(data):
        done += os.write(fd, data[done:])


def _set_xattr(where: bytes | int, key: str, value: bytes, follow: bool) -> None:
    try:
        os.setxattr(where, key, value, follow_symlinks=follow)
    except OSError as error:
        if error.errno in _FULL and len(value) < 1024:
            raise
        raise Damaged(f"layer: attribute {key[:80]!r} of {len(value)} bytes: {error.strerror}") from error


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


@contextlib.contextmanager
def _named(name: bytes) -> Iterator[None]:
    """Errors of system calls as ours, with the member's name."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise Exhausted("no space left for the layer") from error
        raise Damaged(f"layer: {_shown(name)}: {error.strerror}") from error


def _shown(name: bytes) -> str:
    return repr(name[:200].decode(errors="replace"))
