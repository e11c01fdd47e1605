"""Compressed streams: told apart, whole or refused, never a library's own error."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
from collections.abc import Callable

import pytest
import zstandard

from image.compression import decompressed, kind_of
from image.zstdframes import Frames
from model.errors import Damaged

DATA = os.urandom(3000) * 3
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}


def unpack(data: bytes) -> bytes:
    read = decompressed(io.BytesIO(data))
    pieces = []
    while piece := read(1000):
        pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize("name", PACKERS)
def test_stream_is_known_by_its_magic_and_unpacked(name: str) -> None:
    packed = PACKERS[name](DATA)
    assert kind_of(packed) == name
    assert unpack(packed) == DATA


@pytest.mark.parametrize("name", PACKERS)
def test_several_members_are_one_stream(name: str) -> None:
    assert unpack(PACKERS[name](DATA) + PACKERS[name](b"more")) == DATA + b"more"


@pytest.mark.parametrize("name", PACKERS)
def test_stream_cut_anywhere_is_refused(name: str) -> None:
    packed = PACKERS[name](DATA)
    for end in (len(packed) - 1, len(packed) // 2, 20):
        with pytest.raises(Damaged):
            unpack(packed[:end])


@pytest.mark.parametrize("name", PACKERS)
def test_stream_with_changed_bytes_is_refused(name: str) -> None:
    packed = bytearray(PACKERS[name](DATA))
    packed[-10:-4] = b"nsense"
    with pytest.raises(Damaged):
        unpack(bytes(packed))


def test_plain_stream_is_itself() -> None:
    assert unpack(DATA) == DATA
    assert unpack(b"") == b""


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("size", [True, False])
def test_frames_are_followed_whatever_their_headers(checksum: bool, size: bool) -> None:
    packer = zstandard.ZstdCompressor(write_checksum=checksum, write_content_size=size)
    skippable = b"\x53\x2a\x4d\x18\x05\0\0\0" + b"hello"
    parts = [packer.compress(bytes(300_000)), skippable, packer.compress(b""), packer.compress(DATA)]
    packed = b"".join(parts)
    ends = {sum(map(len, parts[:n])) for n in range(len(parts) + 1)}
    frames = Frames()
    whole = {0} if frames.whole else set()
    for position, byte in enumerate(packed):
        frames.feed(bytes([byte]))
        if frames.whole:
            whole.add(position + 1)
    assert whole == ends
