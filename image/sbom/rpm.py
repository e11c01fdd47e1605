"""Headers of installed RPM packages, as their database holds them. Pure.

A header is an index of (tag, type, offset, count) and the data that it leads into; both are an enemy's, so
each offset is checked before it is followed. Source: the RPM manual, "Package format", "Header structure".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from image.sbom.packages import MAX_FIELD, Package, text

NAME, VERSION, RELEASE, EPOCH, VENDOR, LICENSE, URL, ARCH, SOURCE = (
    1000, 1001, 1002, 1003, 1011, 1014, 1020, 1022, 1044,
)  # fmt: skip
_READ = frozenset((NAME, VERSION, RELEASE, EPOCH, VENDOR, LICENSE, URL, ARCH, SOURCE))
_INT32, _STRING, _I18N = 4, 6, 9
_LONGEST = 4 * MAX_FIELD
"""Bytes of a value in which its end is looked for; what is longer is cut."""
_ENTRY = struct.Struct(">IIII")
_MAX_ENTRIES, _MAX_DATA = 1 << 16, 64 << 20
_KEYS = "gpg-pubkey"
"""Not a package: a key that signatures are checked by."""


def package(header: bytes, where: str) -> Package | None:
    """None for what is no package's header."""
    found = dict(_values(header))
    name, version, release = found.get(NAME, ""), found.get(VERSION, ""), found.get(RELEASE, "")
    if not name or not version or name == _KEYS:
        return None
    full = f"{version}-{release}" if release else version
    epoch = found.get(EPOCH, "")
    source = found.get(SOURCE, "")
    return Package(
        kind="rpm",
        name=name,
        version=f"{epoch}:{full}" if epoch and epoch != "0" else full,
        arch=found.get(ARCH, ""),
        license=found.get(LICENSE, ""),
        supplier=found.get(VENDOR, ""),
        source=source if source != "(none)" else "",
        homepage=found.get(URL, ""),
        where=where,
    )


def _values(header: bytes) -> Iterator[tuple[int, str]]:
    if len(header) < 8:
        return
    count, size = struct.unpack_from(">II", header)
    begin = 8 + count * _ENTRY.size
    if count > _MAX_ENTRIES or size > _MAX_DATA or begin + size > len(header):
        return
    data = header[begin : begin + size]
    wanted = set(_READ)
    for number in range(count):
        tag, kind, offset, values = _ENTRY.unpack_from(header, 8 + number * _ENTRY.size)
        if tag not in wanted or offset >= size or values < 1:
            continue
        wanted.remove(tag)  # each stands there once
        if kind in (_STRING, _I18N):
            last = offset + _LONGEST
            end = data.find(b"\0", offset, last)
            if end >= 0 or last < size:
                yield tag, text(data[offset : end if end >= 0 else last])
        elif kind == _INT32 and offset + 4 <= size:
            yield tag, str(struct.unpack_from(">I", data, offset)[0])
