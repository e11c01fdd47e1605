"""A strict, bounded reader of tar streams: POSIX ustar and pax, and the GNU extensions that images contain.

Reads forward only, never seeks. Every number is checked, every extension bounded; what is malformed raises
Damaged with its position. It knows nothing of file systems: `image.unpack` decides what a member may do.
Sources: POSIX.1-2017 pax, "ustar Interchange Format", "pax Header Block"; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from model.errors import Damaged, Unsupported

BLOCK = 512
MAX_EXTENSION = 1 << 20
MAX_NAME = 4096
MAX_MEMBERS = 4_000_000
_ZERO = bytes(BLOCK)
_FILE_TYPES = (b"0", b"\0", b"7")


class Member(NamedTuple):
    """One entry. Names are raw bytes; `kind` is one of file dir symlink hardlink char block fifo."""

    name: bytes
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    link: bytes
    device: tuple[int, int]
    xattrs: dict[str, bytes]


_KINDS = {b"1": "hardlink", b"2": "symlink", b"3": "char", b"4": "block", b"5": "dir", b"6": "fifo"}


class TarReader:
    """`read(n)` gives up to n bytes, b"" at the end. Iterate members; take a file's content by `content()`
    before the next one, else it is skipped."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._left = 0
        self._padding = 0
        self._position = 0
        self._global: dict[str, bytes] = {}

    def __iter__(self) -> Iterator[Member]:
        count = 0
        while (member := self._next()) is not None:
            count += 1
            if count > MAX_MEMBERS:
                raise Damaged(f"the archive has more than {MAX_MEMBERS} members")
            yield member

    def content(self) -> Iterator[bytes]:
        """The current file's bytes, in pieces."""
        while self._left:
            data = self._exactly(min(self._left, 1 << 18))
            self._left -= len(data)
            yield data
        self._skip_padding()

    def drain(self) -> None:
        """Read what follows the end mark, so that a digest over the whole stream is complete."""
        while self._read(1 << 18):
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
                return None
            kind = header[156:157]
            if kind == b"L":
                name = self._extension(header).rstrip(b"\0")
            elif kind == b"K":
                link = self._extension(header).rstrip(b"\0")
            elif kind == b"x":
                extra = _pax(self._extension(header))
            elif kind == b"g":
                self._global.update(_pax(self._extension(header)))
            else:
                return self._member(header, {**self._global, **extra}, name, link)

    def _header(self) -> bytes | None:
        """The next header block, or None at the end: a zero block, or a clean end of the stream."""
        block = self._read_block()
        if block is None or block == _ZERO:
            return None
        stored = _number(block[148:156], "checksum", self._position)
        total = sum(block) - sum(block[148:156]) + 8 * 32
        if stored != total:
            raise Damaged(f"tar: bad header checksum at byte {self._position - BLOCK}")
        return block

    def _read_block(self) -> bytes | None:
        data = b""
        while len(data) < BLOCK:
            piece = self._read(BLOCK - len(data))
            if not piece:
                if data:
                    raise Damaged(f"tar: ends inside a header at byte {self._position}")
                return None
            data += piece
        self._position += BLOCK
        return data

    def _extension(self, header: bytes) -> bytes:
        size = _number(header[124:136], "size", self._position)
        if size > MAX_EXTENSION:
            raise Damaged(f"tar: an extended header of {size} bytes at byte {self._position}")
        data = self._exactly(size) if size else b""
        self._padding = -size % BLOCK
        self._skip_padding()
        return data

    def _member(self, h: bytes, pax: dict[str, bytes], name: bytes | None, link: bytes | None) -> Member:
        flag, at = h[156:157], self._position
        if flag == b"S" or "GNU.sparse.major" in pax or "GNU.sparse.map" in pax:
            raise Unsupported(
                "tar: sparse members are not supported", hint="Make the archive without --sparse"
            )
        plain = _text(h[0:100])
        if h[257:263] == b"ustar\0" and h[345:346] != b"\0":
            plain = _text(h[345:500]) + b"/" + plain
        name = pax.get("path", name if name is not None else plain)
        link = pax.get("linkpath", link if link is not None else _text(h[157:257]))
        kind = "dir" if flag in _FILE_TYPES and name.endswith(b"/") else _KINDS.get(flag)
        if kind is None and flag not in _FILE_TYPES:
            raise Unsupported(f"tar: member of type {flag!r} at byte {at}")
        for part in (name, link):
            if len(part) > MAX_NAME or b"\0" in part:
                raise Damaged(f"tar: impossible name at byte {at}")
        size = _decimal(pax, "size", _number(h[124:136], "size", at))
        self._left = size if kind is None else 0
        if kind is not None and kind not in ("hardlink", "symlink", "dir") and size:
            raise Damaged(f"tar: a {kind} with content at byte {at}")
        self._padding = -self._left % BLOCK
        return Member(
            name=name,
            kind=kind or "file",
            mode=_number(h[100:108], "mode", at) & 0o7777,
            uid=_decimal(pax, "uid", _number(h[108:116], "uid", at)),
            gid=_decimal(pax, "gid", _number(h[116:124], "gid", at)),
            size=self._left,
            mtime_ns=_time(pax, _number(h[136:148], "mtime", at, signed=True)),
            link=link,
            device=_device(h, at) if kind in ("char", "block") else (0, 0),
            xattrs={k[13:]: v for k, v in pax.items() if k.startswith("SCHILY.xattr.")},
        )

    def _exactly(self, count: int) -> bytes:
        data = self._read(count)
        while len(data) < count:
            piece = self._read(count - len(data))
            if not piece:
                raise Damaged(f"tar: ends inside a member at byte {self._position + len(data)}")
            data += piece
        self._position += count
        return data

    def _skip_padding(self) -> None:
        if self._padding:
            padding, self._padding = self._padding, 0
            self._exactly(padding)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes, what: str, at: int, *, signed: bool = False) -> int:
    """An octal field, or GNU base-256 when its first bit is set."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
        if field[0] & 0x40:
            value = int.from_bytes(field, "big", signed=True)
        if (value < 0 and not signed) or value >= 1 << 62:
            raise Damaged(f"tar: impossible {what} at byte {at}")
        return value
    text = field.strip(b" \0")
    if not text:
        return 0
    if text.strip(b"01234567"):
        raise Damaged(f"tar: {what} is no octal number at byte {at}")
    return int(text, 8)


def _pax(data: bytes) -> dict[str, bytes]:
    """Records `length key=value\\n`. Raises Damaged; a key given twice keeps the last, as POSIX says."""
    records: dict[str, bytes] = {}
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 10)
        digits = data[position:space] if space > 0 else b""
        if not digits.isdigit():
            raise Damaged("tar: malformed pax record")
        end = position + int(digits)
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end > len(data) or end <= space + 2 or data[end - 1 : end] != b"\n" or not equals:
            raise Damaged("tar: malformed pax record")
        records[key.decode("utf-8", "surrogateescape")] = value
        position = end
    return records


def _decimal(pax: dict[str, bytes], key: str, other: int) -> int:
    text = pax.get(key)
    if text is None:
        return other
    if not text.isdigit() or len(text) > 19 or int(text) >= 1 << 62:
        raise Damaged(f"tar: pax {key} is {text[:32]!r}")
    return int(text)


def _time(pax: dict[str, bytes], seconds: int) -> int:
    text = pax.get("mtime")
    if text is None:
        return seconds * 1_000_000_000
    whole, _, fraction = text.partition(b".")
    digits = whole.removeprefix(b"-")
    if not digits.isdigit() or len(digits) > 12 or (fraction and not fraction.isdigit()):
        raise Damaged(f"tar: pax mtime is {text[:32]!r}")
    nanoseconds = int(fraction[:9].ljust(9, b"0") or b"0")
    total = int(digits) * 1_000_000_000 + nanoseconds
    return -total if whole.startswith(b"-") else total


def _device(header: bytes, at: int) -> tuple[int, int]:
    return _number(header[329:337], "device", at), _number(header[337:345], "device", at)
