"""Where the files of a streamed context go: on a host its object store, at a client one file beside."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from io import BufferedReader
from typing import BinaryIO

from image.context.find import find, regular
from image.context.follow import followed
from image.context.nodes import NodeFolder
from image.context.objects import Arriving, Lease, Objects
from image.context.serve import Gone
from image.context.tarcontext import Read, read_tar
from image.context.wish import wish_of
from image.extract import write_all
from model.build import Scanned
from model.contexttree import PREFIX, decode
from model.errors import Exhausted, FlotaError

MAX_BYTES = 256 << 30
PIECE = 1 << 20
_ZEROS = bytes(PIECE)


class ObjectSink:
    """Into the store, held by a lease, which also says how much may come."""

    def __init__(self, objects: Objects, lease: Lease) -> None:
        self._objects = objects
        self._lease = lease

    def begin(self) -> _Object:
        return _Object(self._objects.new(), self._lease)

    def keep_tree(self, digest: str, data: bytes) -> None:
        if not self._lease.hold(digest):
            self._lease.take(len(data))
            self._objects.put(data, self._lease)


class _Object:
    def __init__(self, arriving: Arriving, lease: Lease) -> None:
        self._arriving = arriving
        self._lease = lease
        self._open = True

    def write(self, data: bytes) -> None:
        self._lease.take(len(data))
        self._arriving.write(data)

    def zeros(self, count: int) -> None:
        self._lease.take(count)
        self._arriving.zeros(count)

    def done(self) -> str:
        return self._arriving.keep(self._lease)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._arriving.close()


def tar_into(objects: Objects, lease: Lease, source: BufferedReader) -> tuple[str, Sequence[str]]:
    """(root's digest, warnings) of a tar. Raises Damaged, Exhausted, InvalidInput. Blocking."""
    sink = ObjectSink(objects, lease)
    read = read_tar(source, sink)
    return read.nodes.made(sink.keep_tree), read.warnings


class SpoolSink:
    """One after the other into one file, which has no name that anybody else could use."""

    def __init__(self, file: BinaryIO, limit: int = MAX_BYTES) -> None:
        self._file = file
        self._fd = file.fileno()
        self._limit = limit
        self.end = 0
        self.places: dict[str, tuple[int, int]] = {}
        """Offset and size by digest."""

    def close(self) -> None:
        self._file.close()

    def begin(self) -> _Spooled:
        return _Spooled(self)

    def append(self, data: bytes) -> None:
        if self.end + len(data) > self._limit:
            raise Exhausted(f"the build context has more than {self._limit} bytes")
        try:
            os.lseek(self._fd, self.end, os.SEEK_SET)
            write_all(self._fd, data)
        except OSError as error:
            raise Exhausted(f"no space for the build context: {error.strerror}") from error
        self.end += len(data)

    def read(self, digest: str) -> Iterator[bytes]:
        at, left = self.places[digest]
        while left:
            data = os.pread(self._fd, min(left, PIECE), at)
            at, left = at + len(data), left - len(data)
            yield data


class _Spooled:
    def __init__(self, sink: SpoolSink) -> None:
        self._sink = sink
        self._start = sink.end
        self._hasher = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self._hasher.update(data)
        self._sink.append(data)

    def zeros(self, count: int) -> None:
        while count:
            step = min(count, len(_ZEROS))
            self.write(_ZEROS[:step])
            count -= step

    def done(self) -> str:
        digest = PREFIX + self._hasher.hexdigest()
        if digest in self._sink.places:
            self._sink.end = self._start
        else:
            self._sink.places[digest] = (self._start, self._sink.end - self._start)
        return digest

    def close(self) -> None:
        pass


class TarSource:
    """A client's context that came as a tar: `image.context.serve.Source`. `spool`: an empty file, open for
    both, that is nobody else's."""

    def __init__(self, source: BufferedReader, spool: BinaryIO, limit: int = MAX_BYTES) -> None:
        self._source = source
        self._sink = SpoolSink(spool, limit)
        self._read: Read | None = None
        self._failure: FlotaError | None = None
        self._trees: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """What was read goes, with the file that it is in."""
        self._sink.close()

    def scan(self, paths: Sequence[str]) -> Scanned:
        """All of it is read at the first call."""
        with self._lock:
            read = self._all()
            wish = wish_of(followed(NodeFolder(read.nodes.top), paths))
            root = read.nodes.made(self._trees.__setitem__, wish)
            return Scanned(ask=0, root=root, warnings=tuple(read.warnings))

    def file(self, path: str, limit: int) -> bytes:
        """One file's content, such as the Dockerfile's. Raises NotFound, InvalidInput, and as `scan`."""
        root = self.scan([path]).root
        entry = find(lambda digest: decode(self._trees[digest]), root, path)
        return b"".join(self._sink.read(regular(entry, path, limit).digest))

    def _all(self) -> Read:
        if self._failure is not None:
            raise self._failure
        if self._read is None:
            try:
                self._read = read_tar(self._source, self._sink)
            except FlotaError as error:
                self._failure = error
                raise
        return self._read

    def delta(self, digest: str) -> tuple[str, bytes] | None:
        """It is nobody's second tar."""
        del digest
        return None

    def pieces(self, digest: str) -> Iterator[bytes]:
        tree = self._trees.get(digest)
        if tree is not None:
            yield tree
        elif digest in self._sink.places:
            yield from self._sink.read(digest)
        else:
            raise Gone(f"object {digest[:19]}")
