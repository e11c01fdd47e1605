"""What a walk finds as a tar: a layer with its whiteouts (OCI image-spec, layer.md), or a plain tree.

One pass: names, attributes and content are read once, and go out as they come. Invariants: equal trees give
equal bytes; sockets are left out, as they mean nothing without their owner; a file that shrinks while it is
read is filled up with zeros, as its size has been told.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator

from image import tarwriter
from image.sparse import MAX_REGIONS, Regions
from image.tarstream import Member
from image.walk import Found, refuse_references

PIECE = 1 << 20
_NANO = 1_000_000_000
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
}
HIDE_ALL, HIDE = b".wh..wh..opq", b".wh."


class Packer:
    """`upper`: what is walked is an overlay's upper directory. `latest`: times told are no later.
    `seconds`: and have no fractions, so that most headers are plain ones of ustar."""

    def __init__(self, *, upper: bool = False, latest: int | None = None, seconds: bool = False) -> None:
        self._upper = upper
        self._seconds = seconds
        self._latest = None if latest is None else latest * _NANO
        self._links: dict[tuple[int, int], bytes] = {}
        self.files = 0
        self.size = 0
        """Bytes of regular files."""
        self.shrunk = 0
        """Files that became shorter while they were read."""

    def run(self, found: Iterable[Found]) -> Iterator[bytes]:
        """The whole archive, in pieces. Raises Unsupported, OSError."""
        held: list[bytes] = []
        size = 0
        for item in found:
            for piece in self._one(item):
                held.append(piece)
                size += len(piece)
                if size >= PIECE:
                    yield b"".join(held)
                    held.clear()
                    size = 0
        yield b"".join((*held, tarwriter.END))

    def _one(self, item: Found) -> Iterator[bytes]:
        self.files += 1
        if item.kind == "D":
            yield _whiteout(item, HIDE + item.name)
        elif item.kind == "O":
            yield _whiteout(item, HIDE_ALL)
        elif stat.S_ISREG(item.status.st_mode):
            yield from self._file(item)
        else:
            made = _member(item)
            if made is not None:
                yield tarwriter.header(self._timed(made))

    def _file(self, item: Found) -> Iterator[bytes]:
        try:
            fd = item.open()
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):  # gone, or something else by now
                return
            raise
        try:
            if self._upper:
                refuse_references(fd, item.path)
            status = os.fstat(fd)
            key = (status.st_dev, status.st_ino)
            first = self._links.setdefault(key, item.path) if status.st_nlink > 1 else item.path
            if first != item.path:
                linked = _plain(item.path, "hardlink", status)._replace(link=first)
                yield tarwriter.header(self._timed(linked))
                return
            self.size += status.st_size
            regions = holes(fd, status)
            member = _plain(item.path, "file", status)._replace(
                size=status.st_size, xattrs=_xattrs(fd), regions=regions
            )
            yield tarwriter.header(self._timed(member))
            for offset, length in ((0, status.st_size),) if regions is None else regions:
                yield from self._bytes(fd, offset, length)
            yield tarwriter.padding(tarwriter.content_size(member))
        finally:
            os.close(fd)

    def _timed(self, member: Member) -> Member:
        time = member.mtime_ns if self._latest is None else min(member.mtime_ns, self._latest)
        if self._seconds:
            time -= time % _NANO
        return member if time == member.mtime_ns else member._replace(mtime_ns=time)

    def _bytes(self, fd: int, offset: int, length: int) -> Iterator[bytes]:
        while length:
            data = os.pread(fd, min(length, PIECE), offset)
            if not data:
                self.shrunk += 1
                while length:
                    yield bytes(min(length, PIECE))
                    length -= min(length, PIECE)
                return
            offset += len(data)
            length -= len(data)
            yield data


def _member(item: Found) -> Member | None:
    status = item.status
    kind = _KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return None
    made = _plain(item.path, kind, status)
    if kind == "dir":
        return made._replace(name=item.path + b"/" if item.path else b"./", xattrs=_xattrs(item.fd))
    if kind == "symlink":
        try:
            return made._replace(link=os.readlink(item.name, dir_fd=item.folder))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINVAL):
                return None
            raise
    if kind in ("char", "block"):
        return made._replace(device=(os.major(status.st_rdev), os.minor(status.st_rdev)))
    return made


def _plain(path: bytes, kind: str, status: os.stat_result) -> Member:
    return Member(
        name=path,
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=0,
        mtime_ns=status.st_mtime_ns,
        link=b"",
        device=(0, 0),
        xattrs={},
        regions=None,
    )


def _whiteout(item: Found, name: bytes) -> bytes:
    """An empty file, with nothing of the device that stands for it: so it is the same on every host."""
    folder = item.path if item.kind == "O" else item.path[: -len(item.name)].rstrip(b"/")
    path = folder + b"/" + name if folder else name
    member = Member(path, "file", 0, 0, 0, 0, 0, b"", (0, 0), {}, None)
    return tarwriter.header(member)


def _xattrs(fd: int) -> dict[str, bytes]:
    try:
        keys = [key for key in os.listxattr(fd) if tarwriter.xattr_key(key)]
        return tarwriter.xattrs_of({key: os.getxattr(fd, key) for key in keys})
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENODATA):
            return {}
        raise


def holes(fd: int, status: os.stat_result) -> Regions | None:
    """Where a file has data, if it has holes too; as many regions as a reader takes at most: of more, those
    that lie next to each other are joined. None: no holes."""
    if status.st_blocks * 512 >= status.st_size:
        return None
    regions: list[tuple[int, int]] = []
    gap, at = 0, 0
    while at < status.st_size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            raise
        end = min(os.lseek(fd, start, os.SEEK_HOLE), status.st_size)
        if start >= status.st_size:
            break
        regions.append((start, end - start))
        at = end
        if len(regions) > MAX_REGIONS:
            gap = max(gap * 2, 1 << 16)
            regions = _joined(regions, gap)
    return None if regions == [(0, status.st_size)] else tuple(regions)


def _joined(regions: list[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for offset, length in regions:
        if joined and offset - sum(joined[-1]) <= gap:
            joined[-1] = (joined[-1][0], offset + length - joined[-1][0])
        else:
            joined.append((offset, length))
    return joined
