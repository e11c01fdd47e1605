"""A layer's tar, or what a container changed, into a directory, in a process of its own whose root that is.

Runs as `python -m image.unpack`, told by one JSON line on stdin. Before the first member is read the
process has changed its root: whatever links the layer holds, nothing outside can be named. Invariant: a
digest that does not fit, and a stream longer than allowed, are failures. A layer of a container's changes
goes the same way as one that came from elsewhere: it is what every other host will make of its tar.
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
from image.layertar import Changed, layer_of
from image.lower import LowerLayers, hide_below
from image.packed import Packed, Packer, packing
from image.part import Part, opened
from image.tarstream import TarReader
from model.errors import Damaged, ErrorBody, Exhausted, FlotaError, Internal
from model.spec import Struct


class Job(Struct):
    """`source` is a blob (tar, or one compressed), or `changed` a container's directory that the layer is
    made of; `target` an empty directory; limits in bytes and files."""

    target: str
    source: Part = Part(path="")
    changed: Changed | None = None
    diff_id: str = ""
    """Expected digest of the uncompressed tar; empty: whatever it is."""
    whiteouts: bool = True
    """False for a plain root file system, where `.wh.x` is a name like any other."""
    lower: tuple[str, ...] = ()
    """Directories of the layers below, top first."""
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


def run(job: Job) -> Result:
    """Do the job in this process, which gives up its root for it."""
    lower = LowerLayers(job.lower)
    with _opened(job, lower) as (read, packer):
        hasher = hashlib.sha256()
        reader = TarReader(_hashing(read, hasher, packer, job.max_bytes))
        into_root(job.target, trusted=True)
        extractor = Extractor(
            lower, whiteouts=job.whiteouts, max_bytes=job.max_bytes, max_files=job.max_files
        )
        extractor.run(reader)
        reader.drain()
        hide_below(os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), lower)
        diff_id = "sha256:" + hasher.hexdigest()
        packed = packer.done()
    if job.diff_id and diff_id != job.diff_id:
        raise Damaged(f"layer content has digest {diff_id[:19]}…, not {job.diff_id[:19]}… as its image says")
    return Result(diff_id=diff_id, size=extractor.size, files=extractor.files, packed=packed)


@contextmanager
def _opened(job: Job, lower: LowerLayers) -> Iterator[tuple[Callable[[int], bytes], Packer]]:
    """Its plain tar, and what keeps it as it travels; all that they need is open when the block begins."""
    if job.changed is not None:
        pieces = layer_of(job.changed, lower)
        with packing(job.keep, io.BytesIO(), job.max_bytes) as packer:
            yield lambda _: next(pieces, b""), packer
        return
    with opened(job.source) as file, packing(job.keep, file, job.max_bytes) as packer:
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
    job = msgspec.json.decode(stdin.read(), type=Job)
    try:
        result = run(job)
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
