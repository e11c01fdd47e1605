"""Headers of tar members: POSIX ustar, with pax records for whatever it can't say. Pure.

Invariant: equal members give equal bytes, so a tree that is packed again has the same digest; what
`image.tarstream` reads back is what was given. Sources: POSIX.1-2017 pax, "ustar Interchange Format", "pax
Header Block"; GNU tar manual, "Storing Sparse Files" (PAX 1.0).
"""

from __future__ import annotations

from collections.abc import Mapping

from image.tarstream import BLOCK, Member

_FLAGS = {
    "file": b"0",
    "hardlink": b"1",
    "symlink": b"2",
    "char": b"3",
    "block": b"4",
    "dir": b"5",
    "fifo": b"6",
}
_MAX_NAME = 100
_MAX_ID, _MAX_NUMBER = 0o7777777, 0o77777777777
_NANO = 1_000_000_000
_XATTR = "SCHILY.xattr."
END = bytes(2 * BLOCK)
"""What ends an archive."""


def header(member: Member) -> bytes:
    """All that comes before the member's content: of a sparse file its map too, which opens its content. The
    content is the bytes of its regions, or `size` bytes, filled up by `padding`."""
    records = _records(member)
    content, opening = member.size if member.kind == "file" else 0, b""
    name = member.name
    if member.regions is not None:
        opening = _map(member.regions)
        content = len(opening) + sum(length for _, length in member.regions)
        records |= {
            "GNU.sparse.major": b"1",
            "GNU.sparse.minor": b"0",
            "GNU.sparse.name": member.name,
            "GNU.sparse.realsize": b"%d" % member.size,
        }
        records.pop("path", None)
        name = b"GNUSparseFile.0/" + member.name[-_MAX_NAME:].lstrip(b"/")[-80:]
    if content > _MAX_NUMBER:
        records["size"] = b"%d" % content
    pax = b""
    if records:
        data = b"".join(_record(key, records[key]) for key in sorted(records))
        pax = _ustar(b"PaxHeaders.0/", b"x", len(data), 0o644, 0, 0, 0) + data + padding(len(data))
    main = _ustar(
        name[:_MAX_NAME],
        _FLAGS[member.kind],
        min(content, _MAX_NUMBER),
        member.mode,
        min(member.uid, _MAX_ID),
        min(member.gid, _MAX_ID),
        min(max(member.mtime_ns // _NANO, 0), _MAX_NUMBER),
        link=member.link[:_MAX_NAME],
        device=member.device,
    )
    return pax + main + opening


def padding(size: int) -> bytes:
    """What fills content of that size up to whole blocks."""
    return bytes(-size % BLOCK)


def content_size(member: Member) -> int:
    """Bytes that follow the header as content, without padding and sparse map."""
    if member.regions is not None:
        return sum(length for _, length in member.regions)
    return member.size if member.kind == "file" else 0


def _records(member: Member) -> dict[str, bytes]:
    records: dict[str, bytes] = {_XATTR + key: value for key, value in member.xattrs.items()}
    if len(member.name) > _MAX_NAME:
        records["path"] = member.name
    if len(member.link) > _MAX_NAME:
        records["linkpath"] = member.link
    if member.uid > _MAX_ID:
        records["uid"] = b"%d" % member.uid
    if member.gid > _MAX_ID:
        records["gid"] = b"%d" % member.gid
    if member.mtime_ns % _NANO or not 0 <= member.mtime_ns // _NANO <= _MAX_NUMBER:
        records["mtime"] = _time(member.mtime_ns)
    return records


def _time(ns: int) -> bytes:
    whole, fraction = divmod(abs(ns), _NANO)
    text = f"{'-' if ns < 0 else ''}{whole}"
    return (f"{text}.{fraction:09d}".rstrip("0") if fraction else text).encode()


def _record(key: str, value: bytes) -> bytes:
    """`length key=value\\n`, where the length counts its own digits."""
    rest = b" " + key.encode("utf-8", "surrogateescape") + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


def _map(regions: tuple[tuple[int, int], ...]) -> bytes:
    """PAX 1.0: a count, then offset and length of each, a line each, filled up to whole blocks."""
    numbers = [len(regions), *(number for region in regions for number in region)]
    text = b"".join(b"%d\n" % number for number in numbers)
    return text + padding(len(text))


def _ustar(
    name: bytes,
    flag: bytes,
    size: int,
    mode: int,
    uid: int,
    gid: int,
    mtime: int,
    *,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
) -> bytes:
    before = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0" % (name.ljust(100, b"\0"), mode, uid, gid, size, mtime)
    after = b"%b%bustar\00000%b%07o\0%07o\0" % (flag, link.ljust(100, b"\0"), bytes(64), *device)
    after = after.ljust(BLOCK - len(before) - 8, b"\0")
    checksum = sum(before) + sum(after) + 8 * 32
    return b"%b%06o\0 %b" % (before, checksum, after)


def xattr_key(key: str) -> bool:
    """Whether a layer tells of this attribute: capabilities of programs and people's own, never the storage
    driver's."""
    if "=" in key:  # no pax record can name it
        return False
    return key == "security.capability" or (
        key.startswith("user.") and not key.startswith("user.overlay.") and len(key) > len("user.")
    )


def xattrs_of(values: Mapping[str, bytes]) -> dict[str, bytes]:
    """What a layer can tell of them: a pax record without a value means none."""
    return {key: values[key] for key in sorted(values) if xattr_key(key) and values[key]}
