"""The folder of an exec'd process: conmon's files, until the process is over.

Invariant: a folder goes with the end of its process, whoever asks for the exit or nobody; of those that ended
while no agent lived, with the next agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil

from agent.runtime import exits
from agent.runtime.base import Exit
from agent.runtime.supervise import conmon_pid
from aio.processes import process_started


def make(bundle_directory: str) -> str:
    """A new one, of a name that no agent before this one can have given."""
    directory = os.path.join(_all(bundle_directory), secrets.token_hex(8))
    os.makedirs(directory, mode=0o700)
    return directory


def remove(directory: str) -> None:
    shutil.rmtree(directory, ignore_errors=True)


def watch(directory: str, pid: int, started: int) -> asyncio.Future[Exit]:
    """Its process's exit, known once its conmon (`pid`, `started`) has ended; the folder is gone then."""
    ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()

    def over(exit_: Exit) -> None:
        remove(directory)
        ended.set_result(exit_)

    exits.watch(directory, pid, started, over)
    return ended


def adopt(bundle_directory: str) -> None:
    """Those that another agent left in a bundle."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(_all(bundle_directory)):
            directory = os.path.join(_all(bundle_directory), name)
            conmon = _conmon(directory)
            if conmon is None:
                remove(directory)
            else:
                watch(directory, *conmon)


def _all(bundle_directory: str) -> str:
    return os.path.join(bundle_directory, "exec")


def _conmon(directory: str) -> tuple[int, int] | None:
    """The conmon that works there, if it lives: one that names the folder, for a pid alone is reused."""
    with contextlib.suppress(OSError, ValueError):
        pid = conmon_pid(directory)
        started = process_started(pid)
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            if started is not None and os.fsencode(directory) in file.read().split(b"\0"):
                return pid, started
    return None
