"""A mounted root as a place to copy from: a stage's, or an image's.

Its files are a stranger's. Invariants: no link is followed and no name but one leads anywhere, so nothing
outside is seen; nothing but directories and regular files is opened, so nothing blocks.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence

from image.build.places import Item, Kind
from image.tarwriter import xattrs_of
from image.walk import look, open_file

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NAME_MAX = 255
_KINDS: dict[int, Kind] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFSOCK: "socket",
}


class RootFolder:
    """`fd` is an open directory, which is closed with this."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def names(self) -> Sequence[bytes]:
        return sorted(os.fsencode(name) for name in os.listdir(self.fd))

    def itself(self) -> Item:
        return _item(os.fstat(self.fd))

    def item(self, name: bytes) -> Item | None:
        if len(name) > NAME_MAX or b"\0" in name:
            return None  # the kernel would not even look
        status = look(self.fd, name)
        if status is None:
            return None
        item = _item(status)
        return item._replace(target=os.readlink(name, dir_fd=self.fd)) if item.kind == "link" else item

    def enter(self, name: bytes) -> RootFolder:
        return RootFolder(os.open(name, _FOLDER, dir_fd=self.fd))

    def open(self, name: bytes) -> int:
        return open_file(self.fd, name)

    def xattrs(self, name: bytes, fd: int) -> Mapping[str, bytes]:
        del name
        return xattrs_of({key: os.getxattr(fd, key) for key in os.listxattr(fd)})

    def close(self) -> None:
        os.close(self.fd)


def _item(status: os.stat_result) -> Item:
    kind = _KINDS[stat.S_IFMT(status.st_mode)]
    return Item(
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        uid=status.st_uid,
        gid=status.st_gid,
        device=status.st_rdev if kind in ("char", "block") else 0,
        same=(status.st_dev, status.st_ino) if kind == "file" and status.st_nlink > 1 else None,
    )
