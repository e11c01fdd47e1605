"""A layer's tar into a directory, in a process of its own whose root is that directory.

Runs as `python -m image.unpack`, told by one JSON line on stdin. Before the first member is read the
process has changed its root: whatever links the layer holds, nothing outside can be named. Whiteouts become
what overlayfs understands: a 0:0 character device, an opaque xattr (OCI image-spec, layer.md; kernel doc
overlayfs.rst). Invariant: nothing is written through a link, and a digest that does not fit is a failure.
"""

from __future__ import annotations

import hashlib
import os
import resource
import stat
import sys
from collections.abc import Callable
from typing import BinaryIO, Protocol

import msgspec

from image.compression import decompressed
from image.tarstream import Member, TarReader
from model.errors import Damaged, ErrorBody, Exhausted, FlotaError, Internal
from model.spec import Struct

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
META = b".wh..wh."
MAX_DEPTH = 512


class Job(Struct):
    """`source` is a blob (tar, gzip or zstd), `target` an empty directory; limits in bytes and files."""

    source: str
    target: str
    diff_id: str = ""
    """Expected digest of the uncompressed tar; empty: whatever it is."""
    whiteouts: bool = True
    """False for a plain root file system, where `.wh.x` is a name like any other."""
    lower: tuple[str, ...] = ()
    """Directories of the layers below, top first."""
    max_bytes: int = 1 << 40
    max_files: int = 4_000_000


class Result(Struct):
    diff_id: str = ""
    size: int = 0
    files: int = 0
    error: ErrorBody | None = None


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...


class Unpacker:
    """Applies members below the current root directory."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.size = 0
        self.files = 0
        self._folder_times: dict[bytes, int] = {}
        self._made: set[bytes] = {b"/"}

    def apply(self, reader: TarReader) -> None:
        for member in reader:
            self.files += 1
            if self.files > self._job.max_files:
                raise Exhausted(f"the layer has more than {self._job.max_files} files")
            try:
                self._apply(member, reader)
            except OSError as error:
                name = member.name[:200].decode(errors="replace")
                if error.errno in (28, 122):  # ENOSPC, EDQUOT
                    raise Exhausted("no space left for the layer") from error
                raise Damaged(f"layer: {name!r}: {error.strerror}") from error
        for path, mtime in sorted(self._folder_times.items(), reverse=True):
            os.utime(path, ns=(mtime, mtime), follow_symlinks=False)

    def _apply(self, member: Member, reader: TarReader) -> None:
        path = _path(member.name)
        folder, name = os.path.split(path)
        if path != b"/":
            self._parents(folder)
        if self._job.whiteouts and name.startswith(WHITEOUT):
            self._whiteout(folder, name)
            return
        if path == b"/":
            if member.kind == "dir":
                self._attributes(path, member)
            return
        self._make_room(path, member)
        self._make(path, member, reader)
        if member.kind != "hardlink":
            self._attributes(path, member)

    def _parents(self, folder: bytes) -> None:
        """Make missing parents; a parent that is a link or a file gives way to a directory, as no member
        may be written through a link."""
        if folder in self._made:
            return
        if folder.count(b"/") > MAX_DEPTH:
            raise Damaged(f"layer: deeper than {MAX_DEPTH} directories")
        self._parents(os.path.dirname(folder))
        try:
            mode = os.lstat(folder).st_mode
        except FileNotFoundError:
            os.mkdir(folder, 0o755)
        else:
            if not stat.S_ISDIR(mode):
                os.unlink(folder)
                os.mkdir(folder, 0o755)
        self._made.add(folder)

    def _whiteout(self, folder: bytes, name: bytes) -> None:
        if name == OPAQUE:
            os.setxattr(folder, b"trusted.overlay.opaque", b"y", follow_symlinks=False)
            return
        if name.startswith(META):
            return
        hidden = name[len(WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise Damaged(f"layer: a whiteout of {hidden.decode()!r}")
        target = os.path.join(folder, hidden)
        if not os.path.lexists(target):
            os.mknod(target, stat.S_IFCHR | 0o600, os.makedev(0, 0))

    def _make_room(self, path: bytes, member: Member) -> None:
        """A later member replaces an earlier one; a directory that stays a directory keeps its content."""
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            return
        if stat.S_ISDIR(mode):
            if member.kind == "dir":
                return
            _remove_tree(path)
            self._made = {made for made in self._made if made != path and not made.startswith(path + b"/")}
            for kept in [k for k in self._folder_times if k == path or k.startswith(path + b"/")]:
                del self._folder_times[kept]
        else:
            os.unlink(path)

    def _make(self, path: bytes, member: Member, reader: TarReader) -> None:
        if member.kind == "file":
            self._file(path, reader)
        elif member.kind == "dir":
            if not os.path.isdir(path):
                os.mkdir(path, 0o700)
            self._made.add(path)
        elif member.kind == "symlink":
            os.symlink(member.link, path)
        elif member.kind == "hardlink":
            os.link(_path(member.link), path, follow_symlinks=False)
        elif member.kind == "fifo":
            os.mkfifo(path)
        else:
            kind = stat.S_IFCHR if member.kind == "char" else stat.S_IFBLK
            if member.kind == "char" and member.device == (0, 0):
                raise Damaged(f"layer: {path[:200].decode(errors='replace')!r} is a device 0:0")
            os.mknod(path, kind | 0o600, os.makedev(*member.device))

    def _file(self, path: bytes, reader: TarReader) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            for piece in reader.content():
                self.size += len(piece)
                if self.size > self._job.max_bytes:
                    raise Exhausted(f"the layer has more than {self._job.max_bytes} bytes")
                view = memoryview(piece)
                while view:
                    view = view[os.write(fd, view) :]
        finally:
            os.close(fd)

    def _attributes(self, path: bytes, member: Member) -> None:
        """Owner first (it clears setuid), then xattrs, mode, times."""
        if member.uid >= 1 << 32 or member.gid >= 1 << 32:
            raise Damaged(f"layer: owner {member.uid}:{member.gid} is impossible")
        os.chown(path, member.uid, member.gid, follow_symlinks=False)
        for key, value in member.xattrs.items():
            if key.startswith("user.") and member.kind not in ("file", "dir"):
                continue
            if key.startswith("user.") or key == "security.capability":
                os.setxattr(path, key, value, follow_symlinks=False)
        if member.kind != "symlink":
            os.chmod(path, member.mode)
        mtime = max(-(1 << 31) * 10**9, min(member.mtime_ns, (1 << 33) * 10**9))
        if member.kind == "dir":
            self._folder_times[path] = mtime
        else:
            os.utime(path, ns=(mtime, mtime), follow_symlinks=False)


def _path(name: bytes) -> bytes:
    """An absolute path below the new root, without `.` and with `..` stopping at the root. Raises Damaged for
    names that try to climb: no honest archive has them."""
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part in (b"", b"."):
            continue
        if part == b"..":
            raise Damaged(f"layer: {name[:200].decode(errors='replace')!r} leaves the layer")
        if len(part) > 255:
            raise Damaged("layer: a name of more than 255 bytes")
        parts.append(part)
    return b"/" + b"/".join(parts)


def _remove_tree(path: bytes) -> None:
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


def run(job: Job) -> Result:
    """Do the job in this process, which gives up its root for it."""
    with open(job.source, "rb") as source:
        hasher = hashlib.sha256()
        reader = TarReader(_hashing(decompressed(source), hasher))
        _confine(job)
        unpacker = Unpacker(job)
        unpacker.apply(reader)
        reader.drain()
        diff_id = "sha256:" + hasher.hexdigest()
    if job.diff_id and diff_id != job.diff_id:
        raise Damaged(f"layer content has digest {diff_id[:19]}…, not {job.diff_id[:19]}… as its image says")
    return Result(diff_id=diff_id, size=unpacker.size, files=unpacker.files)


def _confine(job: Job) -> None:
    os.chroot(job.target)
    os.chdir("/")
    os.umask(0)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _hashing(read: Callable[[int], bytes], hasher: _Hash) -> Callable[[int], bytes]:
    def inner(count: int) -> bytes:
        data = read(count)
        hasher.update(data)
        return data

    return inner


def main(stdin: BinaryIO, stdout: BinaryIO) -> int:
    job = msgspec.json.decode(stdin.read(), type=Job)
    try:
        result = run(job)
    except FlotaError as error:
        result = Result(error=ErrorBody.of(error))
    except MemoryError:
        result = Result(error=ErrorBody.of(Damaged("layer: needs more memory than an honest one would")))
    except Exception as error:
        result = Result(error=ErrorBody.of(Internal(f"layer: {type(error).__name__}: {error}")))
    stdout.write(msgspec.json.encode(result))
    return 1 if result.error else 0


if __name__ == "__main__":
    sys.exit(main(sys.stdin.buffer, sys.stdout.buffer))
