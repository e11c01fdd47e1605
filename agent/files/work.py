"""Jobs on containers' files, each in a process of its own, with the pace of whoever reads and writes."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from agent.files.job import Job, Result
from aio.piped import Piped
from model.codec import UNREADABLE
from model.containerfiles import PathStat
from model.errors import Internal, NotFound

_ARGV = (sys.executable, "-P", "-m", "agent.files")
_ROOT = str(Path(__file__).parents[2])


@asynccontextmanager
async def started(job: Job) -> AsyncIterator[Piped]:
    """The process, told its job; it ends with the block."""
    piped = await Piped.start(_ARGV, {"PYTHONPATH": _ROOT, "PATH": os.environ.get("PATH", os.defpath)})
    try:
        await piped.write(msgspec.json.encode(job) + b"\n")
        yield piped
    finally:
        await piped.close()


async def output(job: Job) -> AsyncIterator[bytes]:
    """What it writes, to its end. Raises its error."""
    async with started(job) as piped:
        piped.close_stdin()
        while data := await piped.read():
            yield data
        await ended(piped)


async def stat(job: Job) -> PathStat:
    async with started(job) as piped:
        piped.close_stdin()
        while await piped.read():
            pass
        result = await ended(piped)
    if result.stat is None:
        raise NotFound(f"Could not find the file {job.path} in container {job.place.name}")
    return result.stat


async def ended(piped: Piped) -> Result:
    """How it ended. Raises its error."""
    done = await piped.finish()
    last = done.stderr.rstrip(b"\n").rpartition(b"\n")[2]
    try:
        result = msgspec.json.decode(last, type=Result)
    except UNREADABLE:
        words = last.decode(errors="replace")[-300:] or f"exit status {done.code}"
        raise Internal(f"the work on a container's files failed: {words}") from None
    if result.error is not None:
        raise result.error.to_error()
    return result
