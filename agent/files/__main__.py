"""`python -m agent.files`: one job on a container's files, told by the first line of stdin
(`agent.files.job`).

Invariant: nothing of the container is looked at before this process has gone into its root, or has only open
directories to look by.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterable
from io import BufferedReader
from typing import BinaryIO, cast

import msgspec

from agent.files import into, out
from agent.files.job import Job, Result
from agent.files.place import enter
from image.compression import decompressed_stream
from image.confine import die_with_parent, into_root
from image.layertar import changes_of, tree_of
from image.lower import LowerLayers
from image.tarstream import TarReader
from model.containerfiles import Change
from model.errors import Damaged, ErrorBody, Exhausted, FlotaError, Internal, NotFound


def run(job: Job, stdin: BufferedReader, stdout: BinaryIO) -> Result:
    place = job.place
    if job.verb == "changes":
        _changes(job, stdout)
        return Result()
    read = decompressed_stream(stdin) if job.verb == "put" else None
    enter(place)
    if job.verb == "stat":
        return Result(stat=out.tell(job.path, place.name))
    if read is not None:
        top = into.destination(job.path, place.name, read_only=place.read_only)
        reader = TarReader(read)
        into.Placer(top, replace=job.replace).run(reader)
        reader.drain()
        return Result()
    if job.verb == "get":
        _write(out.get(job.path, place.name), stdout)
    else:
        _write(tree_of(os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), job.under), stdout)
    return Result()


def _write(pieces: Iterable[bytes], stdout: BinaryIO) -> None:
    for piece in pieces:
        stdout.write(piece)
    stdout.flush()


def _changes(job: Job, stdout: BinaryIO) -> None:
    assert job.changed is not None
    found = changes_of(job.changed, LowerLayers(job.lower))
    into_root(job.changed.path, trusted=True)
    for item in found:
        if item.kind in ("A", "C", "D"):
            change = Change(kind=item.kind, path="/" + item.path.decode(errors="backslashreplace"))
            stdout.write(msgspec.json.encode(change) + b"\n")
    stdout.flush()


def main(stdin: BufferedReader, stdout: BinaryIO, stderr: BinaryIO) -> int:
    die_with_parent()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    job = msgspec.json.decode(stdin.readline(), type=Job)
    try:
        result = run(job, stdin, stdout)
    except FlotaError as error:
        result = Result(error=ErrorBody.of(error))
    except MemoryError:
        result = Result(error=ErrorBody.of(Exhausted("the files need more memory than there is for them")))
    except BrokenPipeError:
        result = Result(error=ErrorBody.of(Internal("nobody reads any more")))
    except UnicodeError:
        result = Result(error=ErrorBody.of(Damaged("a name that can't be read")))
    except (FileNotFoundError, NotADirectoryError) as error:
        # It was there a moment ago: the container is at it, too.
        result = Result(error=ErrorBody.of(NotFound(f"{error.filename or 'a path'} went while it was read")))
    except OSError as error:
        result = Result(error=ErrorBody.of(Internal(f"a container's files: {error}")))
    stderr.write(msgspec.json.encode(result) + b"\n")
    stderr.flush()
    return 1 if result.error else 0


if __name__ == "__main__":
    code = main(cast(BufferedReader, sys.stdin.buffer), sys.stdout.buffer, sys.stderr.buffer)
    os._exit(code)
