"""Compressed streams by their magic: gzip (several members), zstd, xz, bzip2, or none.

Invariant: memory stays bounded whatever a stream claims; damage raises Damaged, never a library's own error.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from io import BufferedReader
from typing import BinaryIO, Protocol, cast

from image.zstdframes import Frames
from model.errors import Damaged

PIECE = 1 << 18
MAX_WINDOW = 128 << 20
"""The largest zstd window and xz dictionary that is accepted, in bytes."""
_MAGIC = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2"))


def kind_of(head: bytes) -> str:
    """`gzip`, `zstd`, `xz`, `bzip2`, or empty for anything else."""
    return next((name for magic, name in _MAGIC if head.startswith(magic)), "")


def decompressed(source: BinaryIO) -> Callable[[int], bytes]:
    """A reader of the plain bytes of `source`, which stands at its start and can seek."""
    head = source.read(6)
    source.seek(0)
    return _by(kind_of(head), source)


def decompressed_stream(source: BufferedReader) -> Callable[[int], bytes]:
    """As `decompressed`, of what can't seek. Waits for the first bytes."""
    return _by(kind_of(source.peek(6)), source)


def _by(kind: str, source: BinaryIO) -> Callable[[int], bytes]:
    if not kind:
        return source.read
    return _guarded(_opened(kind, source).read, kind)


class _Reader(Protocol):
    def read(self, count: int, /) -> bytes: ...


def _opened(kind: str, source: BinaryIO) -> _Reader:
    if kind == "gzip":
        from isal import igzip

        open_gzip: Callable[..., _Reader] = igzip.IGzipFile
        return open_gzip(fileobj=source, mode="rb")
    if kind == "zstd":
        import zstandard

        inflater = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
        frames = cast(BinaryIO, _WholeFrames(source))  # only read() is called
        return inflater.stream_reader(frames, read_size=PIECE, read_across_frames=True)
    return _Xz(source) if kind == "xz" else bz2.BZ2File(source)


class _WholeFrames:
    """A zstd stream that may not end inside a frame."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._frames = Frames()

    def read(self, count: int) -> bytes:
        data = self._source.read(count)
        self._frames.feed(data)
        if not data and not self._frames.whole:
            raise EOFError("ends early")
        return data


class _Xz:
    """xz with a memory limit, which lzma.LZMAFile has not."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._inflater = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=MAX_WINDOW)

    def read(self, count: int) -> bytes:
        while True:
            if self._inflater.eof:
                rest = self._inflater.unused_data or self._source.read(PIECE)
                if not rest.strip(b"\0"):
                    return b""
                self._inflater = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=MAX_WINDOW)
                data = self._inflater.decompress(rest, count)
            elif self._inflater.needs_input:
                piece = self._source.read(PIECE)
                if not piece:
                    raise EOFError("ends early")
                data = self._inflater.decompress(piece, count)
            else:
                data = self._inflater.decompress(b"", count)
            if data:
                return data


def _guarded(read: Callable[[int], bytes], kind: str) -> Callable[[int], bytes]:
    def inner(count: int) -> bytes:
        try:
            return read(count)
        except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, MemoryError) as error:
            raise Damaged(f"{kind} stream: {error}") from error
        except Exception as error:  # zstandard and isal raise classes of their own
            if type(error).__module__.partition(".")[0] in ("zstandard", "isal", "igzip_lib", "zstd"):
                raise Damaged(f"{kind} stream: {error}") from error
            raise

    return inner
