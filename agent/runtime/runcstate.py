"""What runc keeps on disk about a container, read without running runc.

runc holds a created container by a FIFO: its init opens `exec.fifo` for writing and blocks until someone
reads (opencontainers/runc, libcontainer/container_linux.go, `exec`). `runc start` does nothing but that read
and the removal of the FIFO; doing it here saves a process of 10 ms per start. Invariant: whatever is not as
expected is answered by "don't know", and the caller asks runc itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import msgspec

from agent.trees import remove_tree
from aio.processes import open_process
from aio.spawn import readable
from image.drivers.mounts import unmount
from model.errors import DeadlineExceeded


class _State(msgspec.Struct):
    init_process_pid: int
    init_process_start: int


_DECODER = msgspec.json.Decoder(_State)


class RuncState:
    """runc's state directory (`--root`)."""

    def __init__(self, root: str) -> None:
        self._root = root

    def known(self, container: str) -> bool:
        return os.path.isdir(os.path.join(self._root, container))

    def list(self) -> list[str]:
        return sorted(entry.name for entry in os.scandir(self._root) if entry.is_dir())

    def fifo(self, container: str) -> str:
        return os.path.join(self._root, container, "exec.fifo")

    def open_init(self, container: str) -> int | None:
        """A pidfd of the container's first process; None if it is gone, or not known."""
        try:
            with open(os.path.join(self._root, container, "state.json"), "rb") as file:
                state = _DECODER.decode(file.read())
        except (FileNotFoundError, msgspec.MsgspecError):
            return None
        return open_process(state.init_process_pid, state.init_process_start)

    def alive(self, container: str) -> bool:
        pidfd = self.open_init(container)
        if pidfd is None:
            return False
        os.close(pidfd)
        return True

    def clear(self, container: str) -> None:
        """Take away what `runc delete` leaves of a container whose making was killed: runc's second process
        mounts the program on a file here for a moment, to run a copy of it (libcontainer/nsenter,
        cloned_binary.c). Nothing may run of it any more. Idempotent."""
        folder = os.path.join(self._root, container)
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(folder):
                if entry.name.startswith("runc."):
                    unmount(entry.path)
        remove_tree(Path(folder))

    async def kill(self, container: str, *, deadline: float) -> None:
        """SIGKILL the first process, and with it its pid namespace; wait until it is gone.
        `runc delete --force` would look every 100 ms. Raises DeadlineExceeded (a process in the D state)."""
        pidfd = self.open_init(container)
        if pidfd is None:
            return
        try:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            async with asyncio.timeout(deadline):
                await readable(pidfd)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"container {container[:12]} did not die within {deadline:g} s of SIGKILL",
                hint="A process of it may hang in the kernel, for example on a dead network file system",
            ) from error
        finally:
            os.close(pidfd)


async def start_held(states: RuncState, container: str, *, deadline: float) -> bool:
    """Let the held process run by reading its FIFO; False when that is not possible (ask runc then)."""
    path = states.fifo(container)
    init = states.open_init(container)
    if init is None:
        return False
    try:
        fifo = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        os.close(init)
        return False
    try:
        async with asyncio.timeout(deadline):
            await readable(fifo, init)
        started = os.read(fifo, 1) != b""
        if started:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        return started
    except (TimeoutError, BlockingIOError):
        return False
    finally:
        os.close(fifo)
        os.close(init)
