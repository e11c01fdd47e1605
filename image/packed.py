"""A layer as it travels: the compressed blob beside the unpacked files, which push and save give away again.

A blob that came as gzip or zstd is kept byte for byte, so that an image has the same digests wherever it
goes; any other is made gzip while it is unpacked. Invariant: the digest is that of what was written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, Protocol

from image.compression import PIECE, kind_of
from image.full import HINT
from model.errors import Exhausted
from model.spec import Struct

OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
KEPT = ("gzip", "zstd")
LEVEL = 1
"""Of igzip: the fastest that still halves; registries and links are slower than any."""


class Packed(Struct):
    digest: str = ""
    size: int = 0


class Packer(Protocol):
    @property
    def size(self) -> int:
        """Bytes written so far."""
        ...

    def feed(self, data: bytes) -> None:
        """The next bytes of the uncompressed tar."""
        ...

    def done(self) -> Packed: ...


@contextmanager
def packing(path: str, source: BinaryIO, limit: int) -> Iterator[Packer]:
    """Of `source`, which stands at its start and still does, into a new file `path` of at most `limit` bytes;
    empty: nowhere. Raises Exhausted."""
    if not path:
        yield _Nowhere()
        return
    kind = kind_of(source.read(6))
    source.seek(0)
    with open(path, "xb", buffering=0) as file:
        sink = _Sink(file, limit)
        if kind in KEPT:
            while data := source.read(PIECE):
                sink.write(data)
            source.seek(0)
            yield _Copied(sink)
        else:
            yield _Compressed(sink)


class _File(Protocol):
    def write(self, data: bytes, /) -> int: ...

    def close(self) -> None: ...


class _Sink:
    """Counts and hashes what is written."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file = file
        self._limit = limit
        self._hasher = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        if self.size + len(data) > self._limit:
            if self._limit <= 0:
                raise Exhausted("no space is left on the disk for the layer", hint=HINT)
            raise Exhausted(f"the layer needs more than the {self._limit} bytes that are left", hint=HINT)
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise Exhausted(f"no space for the layer: {error.strerror}") from error
        self._hasher.update(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        return

    def packed(self) -> Packed:
        return Packed(digest="sha256:" + self._hasher.hexdigest(), size=self.size)


class _Nowhere:
    size = 0

    def feed(self, data: bytes) -> None:
        del data

    def done(self) -> Packed:
        return Packed()


class _Copied:
    def __init__(self, sink: _Sink) -> None:
        self._sink = sink
        self.size = sink.size

    def feed(self, data: bytes) -> None:
        del data

    def done(self) -> Packed:
        return self._sink.packed()


class _Compressed:
    def __init__(self, sink: _Sink) -> None:
        from isal import igzip

        self._sink = sink
        gzip_file: Callable[..., _File] = igzip.IGzipFile
        self._file = gzip_file(filename="", mode="wb", compresslevel=LEVEL, fileobj=sink, mtime=0)

    @property
    def size(self) -> int:
        return self._sink.size

    def feed(self, data: bytes) -> None:
        self._file.write(data)

    def done(self) -> Packed:
        self._file.close()
        return self._sink.packed()


def media_type_of(head: bytes) -> str:
    """OCI's name of a layer that begins with these bytes."""
    kind = kind_of(head)
    return f"{OCI_LAYER}+{kind}" if kind else OCI_LAYER
