"""A person's shell in the files of a step that failed: a terminal between runc and the build's client.

Invariant: when the person leaves, by `exit` or by going away, nothing runs on.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import struct
import termios
import tty
from collections.abc import AsyncIterator, Callable

from agent.build.process import PIECE, Bundle, Processes, status_of
from aio.spawn import Child, readable, writable
from image.build.base import Session
from model.build import StepSaid, Typed

LAST_WORDS = 2.0
"""Seconds for what is still in the terminal when the shell has ended."""
AGAIN = 0.3
"""Seconds after which a shell is told again that no more input comes."""
_END_OF_INPUT = b"\x04"


async def converse(processes: Processes, bundle: Bundle, session: Session, number: int) -> int:
    """The shell's exit code. Raises FlotaError when it can't be started."""
    typed = await session.shell(number)
    ours, theirs = os.openpty()
    os.set_blocking(ours, False)
    tty.setraw(theirs)  # the container's own terminal is the one that edits lines and knows control keys

    def said(data: bytes) -> None:
        session.tell(StepSaid(step=number, data=data))

    try:
        async with processes.spawned(bundle, stdin=theirs, stdout=theirs, stderr=theirs) as child:
            os.close(theirs)
            theirs = -1
            code = await _both_ways(child, ours, typed, said)
    finally:
        os.close(ours)
        if theirs >= 0:
            os.close(theirs)
    processes.judge(bundle, code, b"")
    return status_of(code)


async def _both_ways(
    child: Child, terminal: int, typed: AsyncIterator[Typed], said: Callable[[bytes], None]
) -> int:
    async with asyncio.TaskGroup() as group:
        feed = group.create_task(_feed(child, terminal, typed))
        heard = group.create_task(_hear(terminal, said))
        code = await child.wait()
        feed.cancel()
        await asyncio.wait((heard,), timeout=LAST_WORDS)
        heard.cancel()
    return code


async def _feed(child: Child, terminal: int, typed: AsyncIterator[Typed]) -> None:
    async for one in typed:
        if one.rows > 0 and one.cols > 0:
            size = struct.pack("HHHH", min(one.rows, 0xFFFF), min(one.cols, 0xFFFF), 0, 0)
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)
            child.signal(signal.SIGWINCH)  # it is not its controlling terminal: the kernel does not tell
        await _write(terminal, one.data)
    while True:  # a shell that is about to edit lines itself may throw away what was typed before
        await _write(terminal, _END_OF_INPUT)
        await asyncio.sleep(AGAIN)


async def _write(terminal: int, data: bytes) -> None:
    with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
        while data:
            try:
                data = data[os.write(terminal, data) :]
            except BlockingIOError:
                await writable(terminal)


async def _hear(terminal: int, said: Callable[[bytes], None]) -> None:
    """Until the last has closed the other end, which a terminal tells by EIO."""
    with contextlib.suppress(OSError):
        while True:
            try:
                data = os.read(terminal, PIECE)
            except BlockingIOError:
                await readable(terminal)
                continue
            if not data:
                return
            said(data)
            await asyncio.sleep(0)
