"""Starting processes cheaply: posix_spawn and pidfds.

The agent is a big process; posix_spawn borrows its memory for the instant up to exec (CLONE_VM|CLONE_VFORK)
where fork would copy its page tables. Invariant: a child has fds 0–2 and those it was given, in a session of
its own, and is reaped by whoever waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import Mapping, Sequence

from model.errors import CommandFailed

_FIRST_FREE = 64
"""Sources of dup2 are moved above this number, so that no target overwrites a source."""


class Child:
    """A process that we started and must reap. `wait` may be called once, or `let_go` instead."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)
        self._over = False

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
            self._over = True
            # It is a zombie, or dies of SIGKILL at once: this does not block.
            _, status = os.waitpid(self.pid, 0)  # noqa: ASYNC222
        return os.waitstatus_to_exitcode(status)

    def signal(self, number: int) -> None:
        """Nothing, once it is over."""
        if not self._over:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    async def end(self) -> None:
        """Kill it with its session and reap it, if nobody has waited for it. Idempotent."""
        if not self._over:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            await self.wait()

    def let_go(self) -> int:
        """Its pid. It is to outlive us; whoever sees it end while we live reaps it."""
        self._over = True
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


async def writable(fd: int) -> None:
    """Wait until a non-blocking pipe, socket or terminal takes more."""
    loop = asyncio.get_running_loop()
    bell = asyncio.Event()
    loop.add_writer(fd, bell.set)
    try:
        await bell.wait()
    finally:
        loop.remove_writer(fd)
