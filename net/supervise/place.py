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
from net.supervise.files import MOST_STATE, PID, SERVED, STATE, Claim, Mark, Served, full_version, mark_of

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
        self._file = -1
        self._mark, self._refused = Mark(), ""
        self._told: Served | None = None

    def look(self, take: Callable[[bytes], None], more: Callable[[bytes], None] | None = None) -> None:
        """Let `take` have the state if it is another than before, with all its lines; where only lines came
        to it, `more` gets those alone. They raise InvalidInput or ValueError for what makes no sense; lines
        behind such are not looked at."""
        try:
            lines = self._lines() if more is not None else None
            if lines is None:
                data = self._whole()
                if data is not None:
                    self._refused = ""
                    take(data)
            elif lines and more is not None and not self._refused:
                more(lines)
        except (InvalidInput, ValueError) as error:
            self._refused = str(error)
            log.error("a new state is refused, the one before it is served: %s", error)
        except OSError as error:
            self._hold(-1, Mark())  # all of it at the next look
            self._refused = f"{self.path}/{STATE}: {error.strerror}"
            log.error("%s", self._refused)

    def tell(self, *troubles: str) -> None:
        """The verdict on the state that was looked at last."""
        served = Served(mark=self._mark, refused=self._refused, troubles=troubles)
        if served != self._told:
            self._told = served
            _write(self._verdict, encode_json(served))

    def close(self) -> None:
        """Let the folder go; only for those who live on."""
        for fd in (self._folder, self._pid, self._verdict, self._file):
            if fd >= 0:
                os.close(fd)

    def _lines(self) -> bytes | None:
        """Whole lines that came to the file that was read; None when there is another. It is held open: as
        long as we have it, no other can be taken for it. Raises OSError."""
        found = self._stat()
        if found is None or self._file < 0:
            return None
        read = self._mark.size
        if not os.path.samestat(found, os.fstat(self._file)) or found.st_size < read:
            return None
        data = os.pread(self._file, min(found.st_size - read, MOST_STATE), read)
        data = data[: data.rfind(b"\n") + 1]
        self._mark = Mark(first=self._mark.first, size=read + len(data))
        return data

    def _whole(self) -> bytes | None:
        """The file, if it says anything else than before. Raises OSError."""
        if self._stat() is None:
            return None
        fd = os.open(STATE, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folder)
        before = self._mark
        self._hold(fd, Mark())
        data = os.pread(fd, min(os.fstat(fd).st_size, MOST_STATE), 0)
        self._mark = mark_of(data)
        return data[: self._mark.size] if self._mark != before else None

    def _hold(self, fd: int, mark: Mark) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file, self._mark = fd, mark

    def _stat(self) -> os.stat_result | None:
        try:
            return os.stat(STATE, dir_fd=self._folder)
        except FileNotFoundError:
            return None

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
