"""Processes that begin their work at once: forked from one that has imported what they need.

An interpreter takes longer to start than much of the work that needs a process of its own. The warm process
itself never sees any of the work; it ends with us, when it is closed, or when nobody has needed it for long.
Its other half is `aio.warmed`. Invariant: a process whose outcome nobody waits for any more is dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from aio.spawn import Child, readable, spawn
from aio.subprocess import DYING, OUTPUT_CAP
from model.errors import CommandFailed, DeadlineExceeded

IDLE = 300.0
"""Seconds after its last use for which it is kept: it holds some 25 MB."""
STARTING = 60.0
"""Seconds in which a process must have begun."""
ROOT = Path(__file__).parents[1]


class Warm:
    """`module` has `main(stdin, stdout)`, which answers an exit status."""

    def __init__(self, module: str, *, idle: float = IDLE, starting: float = STARTING) -> None:
        self._module = module
        self._idle = idle
        self._starting_within = starting
        self._control: socket.socket | None = None
        self._child: Child | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._starting = asyncio.Lock()
        self._running = 0

    async def run(self, stdin: AsyncIterator[bytes], *, deadline: float) -> bytes:
        """What one process says, up to OUTPUT_CAP bytes; `stdin` is written piece by piece, while it listens.
        Raises DeadlineExceeded after `deadline` s, CommandFailed if it can't start."""
        self._running += 1
        self._keep()
        try:
            ours, theirs = socket.socketpair()
            with ours:
                with theirs:
                    child = await self._hand(theirs)
                pidfd = await self._begun(ours, child)
                try:
                    async with asyncio.timeout(deadline):
                        return await _conversation(ours, stdin)
                except TimeoutError as error:
                    raise DeadlineExceeded(f"{self._module} did not end within {deadline:g} s") from error
                finally:
                    await _dead(pidfd)
        finally:
            self._running -= 1
            self._keep()

    async def close(self) -> None:
        """Its processes end with it. One that hangs is killed after a moment."""
        if self._expiry is not None:
            self._expiry.cancel()
        self._end()
        if self._child is not None:
            child, self._child = self._child, None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DYING):
                    await child.wait()

    async def _hand(self, theirs: socket.socket) -> Child | None:
        """Have a process forked that listens at this socket; what forks it."""
        async with self._starting:
            for attempt in (1, 2):
                if self._control is None:
                    await self.close()
                    self._control = self._start()
                try:
                    socket.send_fds(self._control, [b"f"], [theirs.fileno()])
                    return self._child
                except OSError as error:  # the warm process is dead
                    self._end()
                    if attempt == 2:
                        raise CommandFailed(f"{self._module} can't be started: {error.strerror}") from error
        return None

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        env = {"PYTHONPATH": str(ROOT), "PATH": os.environ.get("PATH", "")}
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._child = spawn(
                [sys.executable, "-P", "-m", "aio.warmed", self._module],
                env,
                stdin=theirs.fileno(),
                stdout=null,
                stderr=2,
                fds={},
            )
            return ours
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(null)

    def _keep(self) -> None:
        """While somebody needs it, and then for a while more: its processes end with it."""
        if self._expiry is not None:
            self._expiry.cancel()
        if not self._running:
            self._expiry = asyncio.get_running_loop().call_later(self._idle, self._end)

    def _end(self) -> None:
        """It is told by the end of its socket; whoever needs one next reaps it."""
        if self._control is not None:
            self._control.close()
            self._control = None

    async def _begun(self, ours: socket.socket, child: Child | None) -> int:
        """The pidfd of the process, which it sends first. A warm process that hangs is ended for it."""
        try:
            async with asyncio.timeout(self._starting_within):
                await readable(ours.fileno())
        except TimeoutError as error:
            if child is not None and child is self._child:
                self._end()
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
            within = f"within {self._starting_within:g} s"
            raise CommandFailed(f"{self._module} did not start {within}") from error
        said, fds, _, _ = socket.recv_fds(ours, 1, 1)
        if not fds:
            why = f": {(said + ours.recv(200)).decode(errors='replace')}" if said else ""
            raise CommandFailed(f"{self._module} could not be started{why}")
        return fds[0]


async def _conversation(ours: socket.socket, stdin: AsyncIterator[bytes]) -> bytes:
    """What is said is read also after it has stopped to listen."""
    ours.setblocking(False)
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        feed = group.create_task(_feed(ours, stdin))
        said = bytearray()
        with contextlib.suppress(ConnectionError):
            while piece := await loop.sock_recv(ours, 65536):
                said += piece[: OUTPUT_CAP - len(said)]
        feed.cancel()
    return bytes(said)


async def _dead(pidfd: int) -> None:
    """Kill it if it lives, and wait for its end, unless it hangs in the kernel."""
    try:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DYING):
                await readable(pidfd)
    finally:
        os.close(pidfd)


async def _feed(ours: socket.socket, stdin: AsyncIterator[bytes]) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        async for piece in stdin:
            await loop.sock_sendall(ours, piece)
        ours.shutdown(socket.SHUT_WR)
