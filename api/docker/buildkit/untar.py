"""A tar that comes in pieces, as fsutil's stats and contents. Pure.

Its entries are a host's own: in the order of a walk, parents first, names sorted in each folder, which is
what fsutil's receivers want. Source: POSIX pax. Invariant: what is no tar is refused; a header is kept whole
only up to MAX_PAX.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator

from msgspec.structs import replace

from api.docker.buildkit.messages import Stat
from model.errors import Damaged

MAX_PAX = 1 << 20
MAX_DIGITS = 9
_BLOCK = tarfile.BLOCKSIZE
_TYPES = {
    tarfile.REGTYPE: 0,
    tarfile.AREGTYPE: 0,
    tarfile.LNKTYPE: 0,
    tarfile.DIRTYPE: 1 << 31,
    tarfile.SYMTYPE: 1 << 27,
    tarfile.FIFOTYPE: 1 << 25,
    tarfile.BLKTYPE: 1 << 26,
    tarfile.CHRTYPE: 1 << 26 | 1 << 21,
}
"""Go's os.FileMode of what an entry is."""
_BITS = ((0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20))


class Untar:
    """Feed it pieces; it gives a Stat for each entry, and then its contents."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._left = 0
        """Bytes of contents that are to come, and of what fills the last block."""
        self._padding = 0
        self._pax: dict[bytes, bytes] = {}
        self._pax_size = -1
        self._ended = False

    def feed(self, data: bytes) -> Iterator[Stat | bytes]:
        """Raises Damaged."""
        self._buffer += data
        while self._buffer and not self._ended:
            if self._left:
                part = bytes(self._buffer[: self._left])
                del self._buffer[: len(part)]
                self._left -= len(part)
                yield part
            elif self._padding:
                size = min(self._padding, len(self._buffer))
                del self._buffer[:size]
                self._padding -= size
            elif self._pax_size >= 0:
                if len(self._buffer) < self._pax_size:
                    return
                self._read_pax()
            else:
                if len(self._buffer) < _BLOCK:
                    return
                stat = self._header()
                if stat is not None:
                    yield stat
        if self._ended:
            self._buffer.clear()

    def end(self) -> None:
        """Raises Damaged where more was to come."""
        if not self._ended:
            raise Damaged("the output's tar broke off")

    def _header(self) -> Stat | None:
        block = bytes(self._buffer[:_BLOCK])
        del self._buffer[:_BLOCK]
        if not any(block):
            self._ended = True
            return None
        try:
            found = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise Damaged(f"the output is no tar: {error}") from None
        if found.type == tarfile.XHDTYPE:
            if found.size > MAX_PAX:
                raise Damaged(f"a header of the output's tar has {found.size} bytes")
            self._pax_size = found.size
            return None
        return self._stat(found)

    def _read_pax(self) -> None:
        data = bytes(self._buffer[: self._pax_size])
        del self._buffer[: self._pax_size]
        self._padding = -self._pax_size % _BLOCK
        self._pax_size = -1
        while data:
            length, _, _ = data.partition(b" ")
            if not length.isdigit() or len(length) > MAX_DIGITS or not 0 < int(length) <= len(data):
                raise Damaged("a header of the output's tar is malformed")
            record, data = data[len(length) + 1 : int(length) - 1], data[int(length) :]
            key, _, value = record.partition(b"=")
            self._pax[key] = value

    def _stat(self, found: tarfile.TarInfo) -> Stat | None:
        pax, self._pax = self._pax, {}
        if found.type not in _TYPES:
            raise Damaged(f"an entry of the output's tar has the type {found.type!r}")
        size, modified = found.size, float(found.mtime)
        try:
            size = int(pax.get(b"size") or size)
            modified = float(pax.get(b"mtime") or modified)
            nanoseconds = int(modified * 1_000_000_000)
        except (ValueError, OverflowError):
            raise Damaged("a header of the output's tar has no possible size or time") from None
        if found.type not in tarfile.REGULAR_TYPES:
            size = 0
        if size < 0:
            raise Damaged("a header of the output's tar has a negative size")
        self._left, self._padding = size, -size % _BLOCK
        path = _clean(pax.get(b"path") or found.name.encode("utf-8", "surrogateescape"))
        if not path:
            return None
        bits = sum(go for unix, go in _BITS if found.mode & unix)
        stat = Stat(
            path=path,
            mode=_TYPES[found.type] | bits | found.mode & 0o777,
            uid=found.uid,
            gid=found.gid,
            size=size,
            modified=nanoseconds,
            major=found.devmajor,
            minor=found.devminor,
        )
        link = pax.get(b"linkpath") or found.linkname.encode("utf-8", "surrogateescape")
        if found.type == tarfile.LNKTYPE:
            return replace(stat, link=_clean(link))
        return replace(stat, link=link) if found.type == tarfile.SYMTYPE else stat


def _clean(path: bytes) -> bytes:
    return b"/".join(part for part in path.split(b"/") if part not in (b"", b"."))
