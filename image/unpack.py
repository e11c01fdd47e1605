"""A layer's tar, or what a container changed, into a directory, in a process of its own whose root that is.

Runs as `python -m image.unpack`, told by one JSON line on stdin, and by further lines how many bytes there
are of a blob that is coming. Before the first member is read the process has changed its root: whatever links
the layer holds, nothing outside can be named. Invariant: a digest that does not fit, and a stream longer than
allowed, are failures. A layer of a container's changes goes the same way as one that came from elsewhere: it
is what every other host will make of its tar.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, Protocol

import msgspec

from image.compression import decompressed
from image.confine import die_with_parent, into_root
from image.extract import Extractor
from image.implied import settle, written
from image.layertar import Changed, layer_of
from image.lower import LowerLayers
from image.pack import Packer as LayerPacker
from image.packed import Packed, Packer, packing
from image.part import Part, opened
from image.tarstream import TarReader
from model.errors import Damaged, ErrorBody, Exhausted, FlotaError, Internal
from model.spec import Struct

WARM = ("isal.igzip",)
"""Modules that a process which forks others to run this has better imported before."""


class Job(Struct):
    """`source` is a blob (tar, or one compressed), or `changed` a container's directory that the layer is
    made of; `target` an empty directory, or nothing: `changed` is the layer's directory already, and only its
    tar is to be digested and kept. Limits in bytes and files."""

    target: str
    source: Part = Part(path="")
    changed: Changed | None = None
    diff_id: str = ""
    """Expected digest of the uncompressed tar; empty: whatever it is."""
    whiteouts: bool = True
    """False for a plain root file system, in which a name like `.wh.x` is refused: other hosts, which get it
    as a layer, would remove `x`."""
    lower: tuple[str, ...] = ()
    """Directories of the layers below, top first."""
    implied: str = ""
    """A file for the paths of implied directories, where those of the layers below are not there yet; empty:
    they take over here what `lower` says of them."""
    keep: str = ""
    """Where its compressed blob goes; empty: nowhere."""
    max_bytes: int = 1 << 40
    """Of the uncompressed tar and what is kept of it; and of all files with their holes."""
    max_files: int = 4_000_000


class Result(Struct):
    diff_id: str = ""
    size: int = 0
    files: int = 0
    packed: Packed = Packed()
    error: ErrorBody | None = None


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...


def run(job: Job, counts: Iterator[int] | None = None) -> Result:
    """Do the job in this process, which gives up its root for it. `counts`: of a source that is coming."""
    if not job.target:
        return _packed(job)
    lower = LowerLayers(job.lower)
    with _opened(job, lower, counts) as (read, packer), _list(job.implied) as implied:
        hasher = hashlib.sha256()
        reader = TarReader(_hashing(read, hasher, packer, job.max_bytes))
        into_root(job.target, trusted=True)
        extractor = Extractor(whiteouts=job.whiteouts, max_bytes=job.max_bytes, max_files=job.max_files)
        extractor.run(reader)
        reader.drain()
        diff_id = "sha256:" + hasher.hexdigest()
        packed = packer.done()
        if implied >= 0:
            written(extractor.implied, implied)
        else:
            settle(os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), extractor.implied, lower)
    if job.diff_id and diff_id != job.diff_id:
        raise Damaged(f"layer content has digest {diff_id[:19]}…, not {job.diff_id[:19]}… as its image says")
    return Result(diff_id=diff_id, size=extractor.size, files=extractor.files, packed=packed)


def _packed(job: Job) -> Result:
    """The tar of a directory that is a layer, not unpacked anywhere."""
    assert job.changed is not None
    counts = LayerPacker(upper=True)
    pieces = layer_of(job.changed, LowerLayers(job.lower), counts)
    hasher = hashlib.sha256()
    with packing(job.keep, io.BytesIO(), job.max_bytes) as packer:
        read = _hashing(lambda _: next(pieces, b""), hasher, packer, job.max_bytes)
        into_root(job.changed.path, trusted=True)
        while read(0):
            continue
        packed = packer.done()
    return Result(diff_id="sha256:" + hasher.hexdigest(), size=counts.size, files=counts.files, packed=packed)


@contextmanager
def _list(path: str) -> Iterator[int]:
    """A new file, open; -1 for an empty name."""
    if not path:
        yield -1
        return
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _opened(
    job: Job, lower: LowerLayers, counts: Iterator[int] | None
) -> Iterator[tuple[Callable[[int], bytes], Packer]]:
    """Its plain tar, and what keeps it as it travels; all that they need is open when the block begins."""
    if job.changed is not None:
        pieces = layer_of(job.changed, lower)
        with packing(job.keep, io.BytesIO(), job.max_bytes) as packer:
            yield lambda _: next(pieces, b""), packer
        return
    with opened(job.source, counts) as file, packing(job.keep, file, job.max_bytes) as packer:
        yield decompressed(file), packer


def _hashing(
    read: Callable[[int], bytes], hasher: _Hash, packer: Packer, limit: int
) -> Callable[[int], bytes]:
    total = 0

    def inner(count: int) -> bytes:
        nonlocal total
        data = read(count)
        hasher.update(data)
        packer.feed(data)
        total += len(data)
        if total + packer.size > limit:
            raise Exhausted(f"the layer unpacks to more than the {limit} bytes that there is room for")
        return data

    return inner


def main(stdin: BinaryIO, stdout: BinaryIO) -> int:
    die_with_parent()
    job = msgspec.json.decode(stdin.readline(), type=Job)
    try:
        result = run(job, map(int, iter(stdin.readline, b"")))
    except FlotaError as error:
        result = Result(error=ErrorBody.of(error))
    except MemoryError:
        result = Result(error=ErrorBody.of(Damaged("layer: needs more memory than an honest one would")))
    except Exception as error:
        result = Result(error=ErrorBody.of(Internal(f"layer: {type(error).__name__}: {error}")))
    stdout.write(msgspec.json.encode(result))
    return 1 if result.error else 0


if __name__ == "__main__":
    sys.exit(main(sys.stdin.buffer, sys.stdout.buffer))
