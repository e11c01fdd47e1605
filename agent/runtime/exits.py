"""How a supervised process ended: conmon's death as the bell, its exit file as the fact.

conmon writes the exit file (by rename) before it ends, so when its pidfd is readable the file is there, or
conmon was killed and the code is lost: that is said as None, never invented.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable

from agent.runtime.base import Exit
from aio.processes import open_process


def read(directory: str) -> Exit | None:
    """The exit that conmon recorded in a bundle's or exec's directory; None if there is none."""
    path = os.path.join(directory, "exit")
    try:
        with open(path, "rb") as file:
            text = file.read(32)
            at = os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return None
    try:
        code = int(text)
    except ValueError:
        return Exit(code=None, at=at)
    return Exit(code=code, oom_killed=os.path.exists(os.path.join(directory, "oom")), at=at)


def watch(directory: str, pid: int, started: int, ring: Callable[[Exit], None]) -> Callable[[], None]:
    """Call `ring` once, from the event loop, when the conmon (`pid`, `started`) has ended or had already.
    Returns what stops the watch."""
    loop = asyncio.get_running_loop()
    pidfd = open_process(pid, started)

    def tell() -> None:
        ring(read(directory) or Exit(code=None, at=time.time()))

    if pidfd is None:
        return loop.call_soon(tell).cancel
    stopped = False

    def stop() -> None:
        nonlocal stopped
        if not stopped:
            stopped = True
            with contextlib.suppress(RuntimeError):
                loop.remove_reader(pidfd)
            os.close(pidfd)

    def ended() -> None:
        stop()
        tell()

    loop.add_reader(pidfd, ended)
    return stop
