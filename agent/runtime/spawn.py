"""Starting processes cheaply: posix_spawn, pidfds, and pipes that asyncio reads.

The agent is a big process; posix_spawn borrows its memory for the instant up to exec (CLONE_VM|CLONE_VFORK)
where fork would copy its page tables. Invariant: a child has fds 0–2 and those it was given, in a session of
its own, and is always reaped.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import Mapping, Sequence

from agent.runtime.argv import last_words
from model.errors import CommandFailed, DeadlineExceeded

_FIRST_FREE = 64
"""Sources of dup2 are moved above this number, so that no target overwrites a source."""


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


class Child:
    """A process that we started and must reap. `wait` may be called once, or `let_go` instead."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)

    async def wait(self) -> int:
        """Its exit status; negative: ended by that signal. Cancelled, it kills the child's session first."""
        try:
            await readable(self._pidfd)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            raise
        finally:
            os.close(self._pidfd)
            # It is a zombie, or dies of SIGKILL at once: this does not block.
            _, status = os.waitpid(self.pid, 0)  # noqa: ASYNC222
        return os.waitstatus_to_exitcode(status)

    def let_go(self) -> int:
        """Its pid. It is to outlive us; whoever sees it end while we live reaps it."""
        os.close(self._pidfd)
        return self.pid


def spawn(
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    stdin: int,
    stdout: int,
    stderr: int,
    fds: Mapping[int, int],
) -> Child:
    """Start `argv[0]` (an absolute path). `fds` maps a descriptor number in the child to one of ours.
    Raises CommandFailed when it can't be started."""
    wanted = {0: stdin, 1: stdout, 2: stderr, **fds}
    moved: list[int] = []
    try:
        actions: list[tuple[int, int, int]] = []
        for target, source in wanted.items():
            high = fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
            moved.append(high)
            actions.append((os.POSIX_SPAWN_DUP2, high, target))
        pid = os.posix_spawn(
            argv[0],
            list(argv),
            dict(env),
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
        )
    except OSError as error:
        name = os.path.basename(argv[0])
        raise CommandFailed(
            f"cannot run {argv[0]}: {error.strerror}", hint=f"Is {name} installed?"
        ) from error
    finally:
        for fd in moved:
            os.close(fd)
    return Child(pid)


async def readable(*fds: int) -> None:
    """Wait until one of them (a pipe, FIFO, socket or pidfd) has something to say."""
    loop = asyncio.get_running_loop()
    bell = asyncio.Event()
    for fd in fds:
        loop.add_reader(fd, bell.set)
    try:
        await bell.wait()
    finally:
        for fd in fds:
            loop.remove_reader(fd)


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
        async with asyncio.timeout(deadline), asyncio.TaskGroup() as group:
            child = spawn(argv, env, stdin=source, stdout=out.theirs, stderr=err.theirs, fds={})
            status = group.create_task(child.wait())
            out.close_theirs()
            err.close_theirs()
            said, complained = (group.create_task(_drain(pipe.ours)) for pipe in (out, err))
    except TimeoutError as error:
        raise DeadlineExceeded(f"{name} did not end within {deadline:g} s") from error
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    finally:
        os.close(source)
        out.close()
        err.close()
    if status.result() != 0:
        words = last_words(complained.result()) or f"exit status {status.result()}"
        raise CommandFailed(f"{name} failed: {words}")
    return said.result()


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
