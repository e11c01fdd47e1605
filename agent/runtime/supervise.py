"""One conmon from spawn to the moment when its container or exec'd process exists.

The order is conmon's: it waits for a byte on the start pipe and answers on the sync pipe with a line of JSON,
`{"data": pid}`, or a negative number and a message in runc's words. (An exec's exit code follows as a second
line; the exit file has it too.) The process that was spawned exits 0 once the one that stays has been forked.
With an attach pipe it first says that its socket is ready, and takes a second byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from agent.runtime import argv as words
from agent.runtime.spawn import Pipe, read_line
from aio.processes import process_started
from aio.spawn import spawn
from model.codec import UNREADABLE
from model.errors import CommandFailed, DeadlineExceeded
from model.spec import Struct


class Supervised(Struct):
    pid: int
    started: int
    conmon_pid: int
    conmon_started: int
    """Start times as in `processes.process_started`; 0 when it had ended already."""


class _Answer(msgspec.Struct):
    data: int
    message: str = ""


async def supervise(
    command: Sequence[str],
    directory: str,
    *,
    deadline: float,
    ready: Callable[[], Awaitable[None]] | None = None,
) -> Supervised:
    """Run a conmon command line. `ready` is awaited when its attach socket listens, before the process runs.

    Raises CommandFailed in runc's words; DeadlineExceeded. Failed or cancelled, conmon and runc are killed.
    """
    sync, start = Pipe(we_read=True), Pipe(we_read=False)
    attach = Pipe(we_read=True) if ready else None
    try:
        async with asyncio.timeout(deadline):
            said, code = await _converse(command, directory, (sync, start, attach), ready)
    except TimeoutError as error:
        _kill(directory)
        raise DeadlineExceeded(f"the runtime did not answer within {deadline:g} s") from error
    except BaseException:
        _kill(directory)
        raise
    finally:
        for pipe in (sync, start, attach):
            if pipe is not None:
                pipe.close()
    return _made(said, code, directory)


async def _converse(
    command: Sequence[str],
    directory: str,
    pipes: tuple[Pipe, Pipe, Pipe | None],
    ready: Callable[[], Awaitable[None]] | None,
) -> tuple[bytes, int]:
    sync, start, attach = pipes
    fds = {words.SYNC_FD: sync.theirs, words.START_FD: start.theirs}
    if attach is not None:
        fds[words.ATTACH_FD] = attach.theirs
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    errors = os.open(
        f"{directory}/conmon.err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode=0o600
    )
    try:
        env = words.conmon_env(attach=attach is not None)
        child = spawn(command, env, stdin=null, stdout=null, stderr=errors, fds=fds)
    finally:
        os.close(null)
        os.close(errors)
        for pipe in pipes:
            if pipe is not None:
                pipe.close_theirs()
    with contextlib.suppress(BrokenPipeError):
        os.write(start.ours, b"\0")
    code = await child.wait()
    if code == 0 and attach is not None and ready is not None:
        if await read_line(attach.ours):
            await ready()
        with contextlib.suppress(BrokenPipeError):
            os.write(start.ours, b"\0")
    return await read_line(sync.ours) if code == 0 else b"", code


def _made(said: bytes, code: int, directory: str) -> Supervised:
    try:
        answer = msgspec.json.decode(said, type=_Answer)
    except UNREADABLE:
        with open(f"{directory}/conmon.err", "rb") as file:
            reason = words.last_words(file.read(1 << 16)) or f"exit status {code}"
        raise CommandFailed(f"conmon failed: {reason}") from None
    if answer.data < 0:
        reason = words.last_words(answer.message.encode()) or f"exit status {-answer.data}"
        raise CommandFailed(f"runc failed: {reason}")
    conmon = conmon_pid(directory)
    return Supervised(
        pid=answer.data,
        started=process_started(answer.data) or 0,
        conmon_pid=conmon,
        conmon_started=process_started(conmon) or 0,
    )


def conmon_pid(directory: str) -> int:
    """Of the conmon that works there, or did. Raises OSError, ValueError."""
    with open(f"{directory}/conmon.pid", "rb") as file:
        return int(file.read())


def _kill(directory: str) -> None:
    """conmon leads a session of its own; a runc that hangs is in its process group."""
    with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
        os.killpg(conmon_pid(directory), signal.SIGKILL)
