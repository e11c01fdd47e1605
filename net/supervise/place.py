"""A process's own side of its folder: claimed by one process, its state looked at, its verdict told.

Everything is opened before privileges go, so that the folder may lie where the process has no way to any
more. A state that can't be read or makes no sense is refused with one line, and the one before it goes on
being served.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from aio.processes import process_started
from model.codec import encode_json
from model.errors import InvalidInput
from net.supervise.files import MOST_STATE, PID, SERVED, STATE, Claim, Served, digest, full_version

log = logging.getLogger("flota.net")


class Place:
    """Raises BlockingIOError when another process holds the folder, OSError when it can't be used."""

    def __init__(self, path: str, version: str) -> None:
        self.path = path
        self._folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._pid = self._owned(PID)
        fcntl.flock(self._pid, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _write(self._pid, Claim(pid=os.getpid(), started=_started(), version=full_version(version)).words())
        self._verdict = self._owned(SERVED)
        os.ftruncate(self._verdict, 0)
        self._digest, self._refused = "", ""
        self._told: Served | None = None

    def look(self, take: Callable[[bytes], None]) -> None:
        """Let `take` have the state if it is another than before; it raises InvalidInput or ValueError for
        one that makes no sense."""
        try:
            data = self._read()
            if data is None or (found := digest(data)) == self._digest:
                return
            self._digest, self._refused = found, ""
            take(data)
        except (InvalidInput, ValueError) as error:
            self._refused = str(error)
            log.error("a new state is refused, the one before it is served: %s", error)
        except OSError as error:
            self._refused = f"{self.path}/{STATE}: {error.strerror}"
            log.error("%s", self._refused)

    def tell(self, *troubles: str) -> None:
        """The verdict on the state that was looked at last."""
        served = Served(digest=self._digest, refused=self._refused, troubles=troubles)
        if served != self._told:
            self._told = served
            _write(self._verdict, encode_json(served))

    def close(self) -> None:
        """Let the folder go; only for those who live on."""
        for fd in (self._folder, self._pid, self._verdict):
            os.close(fd)

    def _read(self) -> bytes | None:
        try:
            fd = os.open(STATE, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folder)
        except FileNotFoundError:
            return None
        with open(fd, "rb") as file:
            return file.read(MOST_STATE)

    def _owned(self, name: str) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(name, flags, 0o640, dir_fd=self._folder)


def run_until_signalled(work: Coroutine[Any, Any, None]) -> None:
    """Until SIGTERM or SIGINT, as the whole of a process."""

    async def guarded() -> None:
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        gc.freeze()
        with contextlib.suppress(asyncio.CancelledError):
            await work

    asyncio.run(guarded())


def _started() -> int:
    started = process_started(os.getpid())
    assert started is not None
    return started


def _write(fd: int, data: bytes) -> None:
    """One write, so that a reader sees the old or the new, or for an instant the new with the old's tail."""
    os.pwrite(fd, data, 0)
    os.ftruncate(fd, len(data))
