"""Talking with children over pipes that asyncio reads, and running programs for their output."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence

from agent.runtime.argv import last_words
from aio.spawn import readable, spawn
from aio.together import together
from model.errors import CommandFailed, DeadlineExceeded


class Pipe:
    """A pipe of which the child gets one end. Close `theirs` after the spawn, `ours` at the end."""

    def __init__(self, *, we_read: bool) -> None:
        read, write = os.pipe()
        self.ours, self.theirs = (read, write) if we_read else (write, read)
        os.set_blocking(self.ours, False)

    def close_theirs(self) -> None:
        if self.theirs >= 0:
            os.close(self.theirs)
            self.theirs = -1

    def close(self) -> None:
        self.close_theirs()
        if self.ours >= 0:
            os.close(self.ours)
            self.ours = -1


async def read_line(fd: int, *, limit: int = 1 << 16) -> bytes:
    """The first line of a non-blocking pipe, or what there is up to its end; later lines may be lost."""
    data = b""
    while len(data) < limit:
        try:
            chunk = os.read(fd, 4096)
        except BlockingIOError:
            await readable(fd)
            continue
        data += chunk
        if not chunk or b"\n" in chunk:
            break
    return data.partition(b"\n")[0]


async def output(
    argv: Sequence[str], env: Mapping[str, str], *, deadline: float, stdin: bytes | None = None
) -> bytes:
    """Run to the end and give its stdout; `stdin` must fit a pipe (64 KiB). Raises CommandFailed with the
    last words of its stderr, DeadlineExceeded after `deadline` seconds (it is killed then)."""
    name = os.path.basename(argv[0])
    out, err = Pipe(we_read=True), Pipe(we_read=True)
    source = _source(stdin)
    try:
        async with asyncio.timeout(deadline):
            child = spawn(argv, env, stdin=source, stdout=out.theirs, stderr=err.theirs, fds={})
            out.close_theirs()
            err.close_theirs()
            texts = together((_drain(out.ours), _drain(err.ours)))
            status, (said, complained) = await together((child.wait(), texts))
    except TimeoutError as error:
        raise DeadlineExceeded(f"{name} did not end within {deadline:g} s") from error
    finally:
        os.close(source)
        out.close()
        err.close()
    if status != 0:
        raise CommandFailed(f"{name} failed: {last_words(complained) or f'exit status {status}'}")
    return said


def _source(data: bytes | None) -> int:
    if data is None:
        return os.open(os.devnull, os.O_RDONLY)
    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        os.write(write, data)
    finally:
        os.close(write)
    return read


async def _drain(fd: int, *, limit: int = 1 << 20) -> bytes:
    kept = bytearray()
    while True:
        try:
            chunk = os.read(fd, 65536)
        except BlockingIOError:
            await readable(fd)
            continue
        if not chunk:
            return bytes(kept)
        kept += chunk[: max(0, limit - len(kept))]
