"""Log rotation: by size, rename and reopen, so that the writer never waits and no line is lost.

conmon goes on in the renamed file until it has opened the new one; it is told through its control FIFO. If
the agent dies between the rename and the telling, a later look finds the live file missing and tells again.
Not at once, though: each telling makes conmon start an empty file in place of the live one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Literal

from agent.logformat import rotated
from aio.inotify import DirectoryBells
from model.spec import LogOptions

log = logging.getLogger("flota.agent.logs")
PAUSE = 0.5
"""Seconds between two looks at sizes; a file may pass its limit by what is written meanwhile."""
PATIENCE = 5.0
"""Seconds within which conmon reopens its log, unless the telling was lost."""


class LogRotator:
    """Watches the logs that it was given. `reopen` gets a bundle directory (`Runtime.reopen_log`)."""

    def __init__(self, reopen: Callable[[str], Awaitable[None]], *, pause: float = PAUSE) -> None:
        self._reopen = reopen
        self._pause = pause
        self._logs: dict[str, tuple[str, LogOptions]] = {}
        self._stops: dict[str, Callable[[], None]] = {}
        self._due: set[str] = set()
        self._told: dict[str, float] = {}
        self._bell = asyncio.Event()
        self._bells: DirectoryBells | None = None

    def add(self, log_path: str, bundle_directory: str, options: LogOptions) -> None:
        """Keep this log within its options from now on. Again for a new attempt's bundle."""
        self.remove(log_path)
        self._logs[log_path] = bundle_directory, options
        self._watch(log_path)
        self._ring(log_path)

    def remove(self, log_path: str) -> None:
        """Idempotent; the files stay."""
        self._logs.pop(log_path, None)
        self._told.pop(log_path, None)
        stop = self._stops.pop(log_path, None)
        if stop is not None:
            stop()

    async def run(self) -> None:
        """Until cancelled."""
        self._bells = DirectoryBells(pause=self._pause)
        try:
            for log_path in self._logs:
                self._watch(log_path)
            while True:
                await self._bell.wait()
                self._bell.clear()
                due, self._due = self._due, set()
                for log_path in sorted(due):
                    await self._look(log_path)
        finally:
            self._bells.close()
            self._bells = None
            self._stops.clear()

    def _watch(self, log_path: str) -> None:
        if self._bells is not None and log_path not in self._stops:
            directory = os.path.dirname(log_path)
            self._stops[log_path] = self._bells.add(directory, lambda: self._ring(log_path))

    def _ring(self, log_path: str) -> None:
        self._due.add(log_path)
        self._bell.set()

    async def _look(self, log_path: str) -> None:
        if log_path not in self._logs:
            return
        bundle_directory, options = self._logs[log_path]
        try:
            found = rotate(log_path, options)
            now = asyncio.get_running_loop().time()
            if found == "renamed" or (
                found == "missing" and now > self._told.get(log_path, -PATIENCE) + PATIENCE
            ):
                self._told[log_path] = now
                await self._reopen(bundle_directory)
        except OSError as error:
            log.warning("rotation of %s: %s", log_path, error.strerror)


def rotate(log_path: str, options: LogOptions) -> Literal["fine", "renamed", "missing"]:
    """One look: rename the live file if it is too large, remove surplus ones. `missing`: it was renamed, and
    the writer has not reopened it."""
    directory, name = os.path.split(log_path)
    numbers = rotated(name, os.listdir(directory))
    try:
        size = os.stat(log_path).st_size
    except FileNotFoundError:
        return "missing" if numbers else "fine"
    keep = max(0, options.max_files - 1)
    for number in numbers[: max(0, len(numbers) - keep)]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{log_path}.{number}")
    if options.max_size <= 0 or size < options.max_size:
        return "fine"
    os.rename(log_path, f"{log_path}.{numbers[-1] + 1 if numbers else 1}")
    return "renamed"
