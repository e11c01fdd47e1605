"""A strict, bounded reader of tar streams: POSIX ustar and pax, and the GNU extensions that images contain.

Reads forward only, never seeks. Every number is checked, every extension bounded; what is malformed raises
Damaged with its position. Global pax headers are checked and then ignored, as Docker and containerd do: a
layer must mean the same everywhere. It knows nothing of file systems: `image.unpack` decides what a member
may do. Sources: POSIX.1-2017 pax, "ustar Interchange Format", "pax Header Block"; GNU tar manual, "Basic Tar
Format".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from image import sparse, tarfields
from image.tarfields import decimal, number
from model.errors import Damaged, Unsupported

BLOCK = 512
MAX_EXTENSION = 1 << 20
MAX_NAME = 4096
MAX_MEMBERS = 4_000_000
_PIECE = 1 << 18
_ZERO = bytes(BLOCK)
_FILE_TYPES = (b"0", b"\0", b"7", b"S")
_KINDS = {b"1": "hardlink", b"2": "symlink", b"3": "char", b"4": "block", b"5": "dir", b"6": "fifo"}
_XATTR = "SCHILY.xattr."


class Member(NamedTuple):
    """One entry. Names are raw bytes; `kind` is one of file dir symlink hardlink char block fifo."""

    name: bytes
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    """Of a file, its holes included."""
    mtime_ns: int
    link: bytes
    device: tuple[int, int]
    xattrs: dict[str, bytes]
    regions: sparse.Regions | None
    """Of a sparse file: where the bytes that `content` gives belong."""


class TarReader:
    """`read(n)` gives up to n bytes, b"" at the end. Iterate members; take a file's content by `content()`
    before the next one, else it is skipped."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._buffer = b""
        self._used = 0
        self._before = 0
        """Bytes of the stream before the buffer."""
        self._left = 0
        self._padding = 0

    @property
    def position(self) -> int:
        """Bytes of the stream taken so far."""
        return self._before + self._used

    def __iter__(self) -> Iterator[Member]:
        count = 0
        while (member := self._next()) is not None:
            count += 1
            if count > MAX_MEMBERS:
                raise Damaged(f"the archive has more than {MAX_MEMBERS} members")
            yield member

    def content(self) -> Iterator[bytes]:
        """The current file's stored bytes, in pieces."""
        while self._left:
            data = self._exactly(min(self._left, _PIECE))
            self._left -= len(data)
            yield data
        self._skip_padding()

    def _skip_padding(self) -> None:
        """Up to the next block. A stream may end with its last member's last byte: umoci writes such
        layers, and Go's archive/tar, so Docker and containerd, takes them."""
        while self._padding:
            if self._used == len(self._buffer) and not self._more():
                self._padding = 0
                return
            step = min(self._padding, len(self._buffer) - self._used)
            self._used += step
            self._padding -= step

    def drain(self) -> None:
        """Read what follows the end mark, so that a digest over the whole stream is complete."""
        while self._read(_PIECE):
            pass

    # -- headers ------------------------------------------------------------------------------------
    def _next(self) -> Member | None:
        for _ in self.content():
            pass
        extra: dict[str, bytes] = {}
        name = link = None
        while True:
            header = self._header()
            if header is None:
                if extra or name is not None or link is not None:
                    raise Damaged(f"tar: ends after an extended header at byte {self.position}")
                return None
            kind = header[156:157]
            if kind == b"L":
                name = self._extension(header).rstrip(b"\0")
            elif kind == b"K":
                link = self._extension(header).rstrip(b"\0")
            elif kind == b"x":
                extra = tarfields.pax(self._extension(header))
            elif kind == b"g":
                tarfields.pax(self._extension(header))
            else:
                return self._member(header, extra, name, link)

    def _header(self) -> bytes | None:
        """The next header block, or None at the end: two zero blocks, or the stream's end between members."""
        block = self._block()
        if block == _ZERO:
            if (second := self._block()) not in (_ZERO, None):
                assert second is not None
                raise Damaged(f"tar: a lone zero block at byte {self.position - 2 * BLOCK}")
            return None
        if block is None:
            return None
        stored = number(block[148:156], "checksum", self.position)
        if stored != sum(block) - sum(block[148:156]) + 8 * 32:
            raise Damaged(f"tar: bad header checksum at byte {self.position - BLOCK}")
        return block

    def _extension(self, header: bytes) -> bytes:
        size = number(header[124:136], "size", self.position)
        if size > MAX_EXTENSION:
            raise Damaged(f"tar: an extended header of {size} bytes at byte {self.position}")
        data = self._exactly(size)
        self._exactly(-size % BLOCK)
        return data

    def _member(self, h: bytes, pax: dict[str, bytes], name: bytes | None, link: bytes | None) -> Member:
        flag, at = h[156:157], self.position
        name = pax.get("path", name if name is not None else _plain_name(h))
        name = pax.get("GNU.sparse.name", name)
        link = pax.get("linkpath", link if link is not None else tarfields.text(h[157:257]))
        kind = "dir" if flag == b"\0" and name.endswith(b"/") else _KINDS.get(flag)
        if kind is None and flag not in _FILE_TYPES:
            raise Unsupported(f"tar: member of type {flag!r} at byte {at}")
        for part in (name, link):
            if len(part) > MAX_NAME or b"\0" in part:
                raise Damaged(f"tar: impossible name at byte {at}")
        stored = decimal(pax, "size", number(h[124:136], "size", at))
        if kind in ("char", "block", "fifo") and stored:
            raise Damaged(f"tar: a {kind} with content at byte {at}")
        regions, size = None, 0
        self._left, self._padding = 0, 0
        if kind is None:
            regions, size = self._begin(h, pax, stored)
        return Member(
            name=name,
            kind=kind or "file",
            mode=number(h[100:108], "mode", at) & 0o7777,
            uid=decimal(pax, "uid", number(h[108:116], "uid", at)),
            gid=decimal(pax, "gid", number(h[116:124], "gid", at)),
            size=size,
            mtime_ns=tarfields.nanoseconds(pax, number(h[136:148], "mtime", at, signed=True)),
            link=link,
            device=_device(h, at) if kind in ("char", "block") else (0, 0),
            xattrs={k[len(_XATTR) :]: v for k, v in pax.items() if k.startswith(_XATTR)} if pax else {},
            regions=regions,
        )

    def _begin(self, h: bytes, pax: dict[str, bytes], stored: int) -> tuple[sparse.Regions | None, int]:
        """Stand at a file's content: its regions, if it is sparse, and its size."""
        at = self.position
        regions: sparse.Regions | None = None
        size, data = stored, stored
        if h[156:157] == b"S":
            regions, size = sparse.from_header(h, lambda: self._exactly(BLOCK), at)
        elif pax.get("GNU.sparse.major") is not None:
            if (pax["GNU.sparse.major"], pax.get("GNU.sparse.minor")) != (b"1", b"0"):
                raise Unsupported(f"tar: an unknown sparse format at byte {at}")
            size = decimal(pax, "GNU.sparse.realsize", -1)
            regions, taken = sparse.from_content(lambda: self._exactly(BLOCK), size)
            data = stored - taken
        elif "GNU.sparse.map" in pax:
            size = decimal(pax, "GNU.sparse.size", -1)
            regions = sparse.from_text(pax["GNU.sparse.map"], size)
        if regions is not None and sum(length for _, length in regions) != data:
            raise Damaged(f"tar: a sparse map that does not fit its content at byte {at}")
        self._left, self._padding = data, -data % BLOCK
        return regions, size

    # -- bytes --------------------------------------------------------------------------------------
    def _block(self) -> bytes | None:
        """None at the stream's end."""
        if self._used == len(self._buffer) and not self._more():
            return None
        return self._exactly(BLOCK)

    def _exactly(self, count: int) -> bytes:
        end = self._used + count
        if end <= len(self._buffer):
            data = self._buffer[self._used : end]
            self._used = end
            return data
        parts = [self._buffer[self._used :]]
        missing = count - len(parts[0])
        self._used = len(self._buffer)
        while missing:
            if not self._more():
                raise Damaged(f"tar: ends inside a member at byte {self.position}")
            self._used = min(missing, len(self._buffer))
            parts.append(self._buffer[: self._used])
            missing -= self._used
        return b"".join(parts)

    def _more(self) -> bool:
        """Another buffer, once the last one is used up."""
        self._before += len(self._buffer)
        self._buffer, self._used = self._read(_PIECE), 0
        return bool(self._buffer)


def _plain_name(header: bytes) -> bytes:
    name = tarfields.text(header[0:100])
    if header[257:263] == b"ustar\0" and header[345] != 0:
        return tarfields.text(header[345:500]) + b"/" + name
    return name


def _device(header: bytes, at: int) -> tuple[int, int]:
    return number(header[329:337], "device", at), number(header[337:345], "device", at)
