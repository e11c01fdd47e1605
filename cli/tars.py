"""Local files as a tar, and a tar as local files, for `flota cp`.

What comes from a container is a stranger's: invariants: no name leaves the directory that was asked for, no
link below it is followed, no device is made, and no file becomes setuid unless owners are kept on purpose.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO, cast

from cli.parse.copies import Plan, renamed
from model.errors import Damaged, InvalidInput

PIECE = 1 << 18
END = bytes(1024)
_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
}
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def packed(path: str, label: str, wish: Plan, *, owners: bool) -> Iterator[bytes]:
    """A local path as a tar, its topmost entry `label` (`.`: what is in it), renamed as planned. Without
    `owners` all is root's. Sockets are left out."""
    twins: dict[tuple[int, int], str] = {}
    for place, name in _tree(path, "" if label == "." else label):
        made = renamed(name, wish)
        status = os.lstat(place)
        info = _info(place, made or ".", status, owners=owners)
        if info is None:
            continue
        key = status.st_dev, status.st_ino
        if info.isreg() and status.st_nlink > 1 and (first := twins.setdefault(key, made)) != made:
            info.type, info.linkname, info.size = tarfile.LNKTYPE, first, 0
        yield info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        if info.isreg():
            yield from _content(place, info.size)
    yield END


def _tree(path: str, name: str) -> Iterator[tuple[str, str]]:
    yield path, name
    if os.path.islink(path) or not os.path.isdir(path):
        return
    for entry in sorted(os.listdir(path)):
        yield from _tree(os.path.join(path, entry), f"{name}/{entry}" if name else entry)


def _info(place: str, name: str, status: os.stat_result, *, owners: bool) -> tarfile.TarInfo | None:
    kind = _TYPES.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return None
    info = tarfile.TarInfo(name)
    info.type, info.mode = kind, stat.S_IMODE(status.st_mode)
    info.size = status.st_size if kind == tarfile.REGTYPE else 0
    if owners:
        info.uid, info.gid = status.st_uid, status.st_gid
    if kind == tarfile.SYMTYPE:
        info.linkname = os.readlink(place)
    if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    seconds, fraction = divmod(status.st_mtime_ns, 1_000_000_000)
    info.mtime = seconds
    if fraction and seconds >= 0:
        info.pax_headers = {"mtime": f"{seconds}.{fraction:09d}"}
    return info


def _content(place: str, size: int) -> Iterator[bytes]:
    """As many bytes as its header says: of a file that shrinks meanwhile the rest is zeros."""
    left = size
    with open(place, "rb", buffering=0) as file:
        while left and (data := file.read(min(left, PIECE))):
            left -= len(data)
            yield data
    while left:
        yield bytes(min(left, PIECE))
        left -= min(left, PIECE)
    yield bytes(-size % 512)


class Stream:
    """Pieces of bytes as a file that is read."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = b""
        self.size = 0

    def read(self, count: int) -> bytes:
        parts, missing = [], count
        while missing:
            if not self._rest:
                self._rest = next(self._pieces, b"")
                self.size += len(self._rest)
                if not self._rest:
                    break
            part, self._rest = self._rest[:missing], self._rest[missing:]
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)


def unpack(source: Stream, wish: Plan, *, owners: bool, skipped: Callable[[str], None]) -> None:
    """Below `wish.folder`. Raises InvalidInput, Damaged, OSError."""
    top = os.open(wish.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    folders: list[tuple[str, int]] = []
    try:
        with tarfile.open(fileobj=cast(IO[bytes], source), mode="r|", errors="surrogateescape") as archive:
            for info in archive:
                name = _asked_for(info.name, wish)
                if not name:
                    continue
                if info.ischr() or info.isblk():
                    skipped(f"{name} is a device, and is left out")
                    continue
                _place(top, name, info, archive, wish, owners=owners)
                if info.isdir():
                    folders.append((name, _mtime(info)))
        while source.read(PIECE):
            pass
        for name, mtime in reversed(folders):
            with _parent(top, name) as (parent, base), contextlib.suppress(FileNotFoundError):
                os.utime(base, ns=(mtime, mtime), dir_fd=parent, follow_symlinks=False)
    except tarfile.TarError as error:
        raise Damaged(f"what the container's host sent is no tar: {error}") from error
    finally:
        os.close(top)


def _asked_for(name: str, wish: Plan) -> str:
    """As it is to be called here. Beside the topmost entry, which is the path that was asked for, a host that
    lies could put anything: into somebody's home directory a `.profile`."""
    made = renamed(name, wish)
    if ".." in made.split("/"):
        raise Damaged(f"{made[:200]!r} leaves the directory")
    if wish.new and made.split("/")[0] != wish.new:
        raise Damaged(f"the container's host sent {name[:200]!r}, which nobody asked for")
    return made


@contextlib.contextmanager
def _parent(top: int, name: str) -> Iterator[tuple[int, str]]:
    """(the open directory that an entry is in, its name there); made where missing."""
    *parts, base = name.split("/")
    here = os.dup(top)
    try:
        for part in parts:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, dir_fd=here)
            try:
                below = os.open(part, _FOLDER, dir_fd=here)
            except OSError as error:
                raise InvalidInput(f"{name}: {part} is a link or no directory here") from error
            os.close(here)
            here = below
        yield here, base
    finally:
        os.close(here)


def _place(
    top: int, name: str, info: tarfile.TarInfo, archive: tarfile.TarFile, wish: Plan, *, owners: bool
) -> None:
    with _parent(top, name) as (parent, base):
        try:
            standing = os.lstat(base, dir_fd=parent).st_mode
        except FileNotFoundError:
            standing = 0
        if stat.S_ISDIR(standing) and not info.isdir():
            raise InvalidInput(f"cannot overwrite directory {name} with non-directory")
        if standing and not stat.S_ISDIR(standing):
            if info.isdir():
                raise InvalidInput(f"cannot overwrite non-directory {name} with directory")
            os.unlink(base, dir_fd=parent)
        if info.isdir():
            if not standing:
                os.mkdir(base, 0o700, dir_fd=parent)
        elif info.issym():
            os.symlink(info.linkname, base, dir_fd=parent)
        elif info.islnk():
            with _parent(top, _asked_for(info.linkname, wish)) as (other, twin):
                os.link(twin, base, src_dir_fd=other, dst_dir_fd=parent, follow_symlinks=False)
            return
        elif info.isfifo():
            os.mkfifo(base, 0o600, dir_fd=parent)
        else:
            _write(parent, base, info, archive)
        _attributes(parent, base, info, owners=owners)


def _write(parent: int, base: str, info: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
    content = archive.extractfile(info)
    with os.fdopen(os.open(base, _NEW, 0o600, dir_fd=parent), "wb") as file:
        raw = cast(io.RawIOBase, cast(io.BufferedReader, content).raw)  # a buffer seeks in no stream
        for offset, left in _regions(info):
            raw.seek(offset)
            file.seek(offset)
            while left and (data := raw.read(min(left, PIECE))):
                file.write(data)
                left -= len(data)
        file.truncate(info.size)


def _regions(info: tarfile.TarInfo) -> list[tuple[int, int]]:
    """Where it has data: its holes may be as long as a stranger likes, and are not read."""
    sparse: list[tuple[int, int]] | None = getattr(info, "sparse", None)
    return [(0, info.size)] if sparse is None else sparse


def _attributes(parent: int, base: str, info: tarfile.TarInfo, *, owners: bool) -> None:
    if owners:
        os.chown(base, info.uid, info.gid, dir_fd=parent, follow_symlinks=False)
    if not info.issym():
        os.chmod(base, info.mode & (0o7777 if owners else 0o1777), dir_fd=parent)
    os.utime(base, ns=(_mtime(info), _mtime(info)), dir_fd=parent, follow_symlinks=False)


def _mtime(info: tarfile.TarInfo) -> int:
    text = info.pax_headers.get("mtime", "")
    whole, _, fraction = text.partition(".")
    if whole.isdigit() and len(whole) < 11 and (fraction.isdigit() or not fraction):
        return int(whole) * 10**9 + int(fraction[:9].ljust(9, "0") or "0")
    return int(info.mtime) * 10**9
