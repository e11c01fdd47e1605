"""Running `image.unpack`: one process for each layer, which may follow a blob that is still coming.

Invariant: a process that nobody waits for any more is dead; what followed a transfer which began again is
thrown away.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from aio.warm import Warm
from image.arrival import Arrival
from image.unpack import Job, Result
from model.codec import UNREADABLE
from model.errors import Damaged, DeadlineExceeded, FlotaError, Internal

UNPACK_DEADLINE = 3600.0
MAX_BYTES, MAX_FILES = 1 << 38, 4_000_000
RESERVE = 64 << 20
"""Bytes that stay free whatever a layer holds."""


class InVain(Exception):
    """What the process has read is not what is in the file now, or came too slowly."""


class Transit(NamedTuple):
    """Of a layer that is unpacked beside others, while its blob comes. `below` waits for the layers under it;
    `slots` are for processes."""

    arrival: Arrival
    below: Callable[[], Awaitable[object]]
    slots: asyncio.Semaphore


def workers() -> Warm:
    return Warm("image.unpack")


async def unpacked(warm: Warm, job: Job) -> Result:
    """In a process of its own: unpacking is bound by the CPU, and its input is a stranger's. Raises Damaged,
    Exhausted."""
    return await _run(warm, job, None)


async def followed(warm: Warm, job: Job, transit: Transit) -> Result:
    """As `unpacked`, while the blob comes; it has wholly come and is verified when this returns or raises, so
    that a layer is refused for what it is. Raises InVain too."""
    arrival = transit.arrival
    await arrival.begun()
    attempt = arrival.attempt
    source = replace(job.source, size=arrival.size, coming=True)
    outcome: Result | FlotaError
    try:
        async with transit.slots:
            outcome = await _run(warm, replace(job, source=source), arrival)
    except FlotaError as error:
        outcome = error
    await arrival.whole()
    if arrival.attempt != attempt or isinstance(outcome, DeadlineExceeded):
        raise InVain
    if isinstance(outcome, FlotaError):
        raise outcome
    return outcome


async def _run(warm: Warm, job: Job, arrival: Arrival | None) -> Result:
    if job.target:
        Path(job.target).mkdir(mode=0o755, parents=True)
    said = await warm.run(_told(job, arrival), deadline=UNPACK_DEADLINE)
    try:
        result = msgspec.json.decode(said, type=Result)
    except UNREADABLE:
        words = said.decode(errors="replace").strip()[-300:]
        if not words:
            raise Damaged("the layer's unpacking was killed") from None
        raise Internal(f"the layer's unpacking failed: {words}") from None
    if result.error is not None:
        raise result.error.to_error()
    return result


async def _told(job: Job, arrival: Arrival | None) -> AsyncIterator[bytes]:
    yield msgspec.json.encode(job) + b"\n"
    if arrival is not None:
        async for count in arrival.counts():
            yield b"%d\n" % count


def limits(folder: Path) -> dict[str, int]:
    """How much one layer may take: what is free, less a reserve, so that a bomb ends before the disk does."""
    free = os.statvfs(folder)
    room = (free.f_bavail * 95 // 100 - RESERVE // free.f_frsize) * free.f_frsize
    files = free.f_favail * 95 // 100 if free.f_files else MAX_FILES
    return {"max_bytes": max(min(room, MAX_BYTES), 0), "max_files": min(files, MAX_FILES)}
