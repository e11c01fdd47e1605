"""Headers of plain files in a tar of our own making: ustar, no owner, no time, so equal content gives equal
bytes. Pure. Source: POSIX.1-2017 pax, "ustar Interchange Format"; sizes from 8 GiB in GNU's base 256."""

from __future__ import annotations

BLOCK = 512
_OCTAL_LIMIT = 1 << 33


def file_header(name: str, size: int) -> bytes:
    """`name` has at most 100 bytes."""
    raw = name.encode()
    assert len(raw) <= 100, name
    header = bytearray(BLOCK)
    header[0 : len(raw)] = raw
    header[100:108] = b"0000644\0"
    header[108:116] = header[116:124] = b"0000000\0"
    header[124:136] = b"%011o\0" % size if size < _OCTAL_LIMIT else b"\x80" + size.to_bytes(11, "big")
    header[136:148] = b"%011o\0" % 0
    header[148:156] = b" " * 8
    header[156:157] = b"0"
    header[257:265] = b"ustar\x0000"
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def padding(size: int) -> bytes:
    return bytes(-size % BLOCK)


def trailer() -> bytes:
    return bytes(2 * BLOCK)
