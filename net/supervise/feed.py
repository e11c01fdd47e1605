"""Telling a process that outlives us what to serve, and hearing what it made of it.

Invariant: the file is written only when it changed, and a verdict counts only while the process that gave it
lives. What changed may be told as a line behind what was told before, until the lines outweigh it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable

from aio.inotify import DirectoryBells
from aio.mailbox import Bell
from model.codec import decode_json
from model.errors import InvalidInput
from net.supervise.files import (
    SERVED,
    STATE,
    Mark,
    Served,
    append_state,
    living,
    mark_of,
    prepare,
    read,
    refusals,
    write_state,
)

log = logging.getLogger("flota.net")

CHECK = 5.0
"""Seconds between looks without a bell; a state that could not be written is written then."""
LEAST = 1 << 16
"""Bytes of lines that are not worth a new file."""
SILENT = Served()


class StateFeed:
    """`what` begins the words about it; `changed` is called when `troubles` are others than before. What an
    earlier writer left is good until there is better."""

    def __init__(self, folder: str, *, group: int, what: str, check: float = CHECK) -> None:
        self.folder = folder
        self.changed: Callable[[], None] = lambda: None
        self._group, self._what, self._check = group, what, check
        self._data, self._begun, self._mark = bytearray(), 0, Mark()
        self._trouble = ""
        self._verdict = SILENT
        self._news = asyncio.Event()
        found = read(folder, STATE)
        if found:
            self._hold(found)
        self._written = bool(found)

    @property
    def troubles(self) -> tuple[str, ...]:
        return tuple(word for word in (self._trouble, *refusals(self._verdict, self._what)) if word)

    @property
    def data(self) -> bytes:
        """What is told now."""
        return bytes(self._data)

    def update(self, data: bytes) -> None:
        """Serve this from now on. Cheap when nothing changed; never waits."""
        if data == self._data and self._written:
            return
        self._hold(data)
        self._write()

    def extend(self, line: bytes) -> bool:
        """Serve what is told now with this change of it, a line with its end. False, and nothing is said,
        where all of it should be told anew: it was refused, or lines outweigh it."""
        lines = len(self._data) - self._begun + len(line)
        if self._verdict.refused or not self._data.endswith(b"\n") or lines > max(LEAST, self._begun):
            return False
        before = len(self._data)
        self._data += line
        self._mark = Mark(first=self._mark.first, size=len(self._data))
        self._write(before)
        return True

    def _hold(self, data: bytes) -> None:
        self._data, self._mark = bytearray(data), mark_of(data)
        self._begun = data.find(b"\n") + 1 or len(data)

    async def served(self, deadline: float) -> bool:
        """Wait until what is told now is served; False after `deadline` seconds, or when it is refused."""
        self._look()
        wanted = self._mark
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline):
                while not self._has_read(wanted):
                    news = self._news
                    await news.wait()
        return self._has_read(wanted) and not self._verdict.refused

    def _has_read(self, wanted: Mark) -> bool:
        """So much of the file, or all of the one that came after it."""
        return self._verdict.mark.reaches(wanted) or self._verdict.mark.reaches(self._mark)

    async def run(self, bells: DirectoryBells) -> None:
        """Until cancelled."""
        prepare(self.folder, self._group)
        bell = Bell()
        stop = bells.add(self.folder, bell.ring)
        try:
            while True:
                self._look()
                if not await bell.wait(self._check) and self._data and not self._written:
                    self._write()
        finally:
            stop()

    def _write(self, standing: int = 0) -> None:
        """All of it, or what is behind the first `standing` bytes where those are there."""
        trouble, line = "", bytes(self._data[standing:]) if standing and self._written else b""
        try:
            if not line or not append_state(self.folder, line, standing):
                prepare(self.folder, self._group)
                write_state(self.folder, self._data, self._group)
        except OSError as error:
            trouble = f"{self._what}: {os.path.join(self.folder, STATE)} cannot be written: {error.strerror}"
            log.warning("%s", trouble)
        self._written = not trouble
        before, self._trouble = self.troubles, trouble
        if self.troubles != before:
            self.changed()

    def _look(self) -> None:
        """The verdict; one that is being written is read at the next bell."""
        with contextlib.suppress(InvalidInput):
            verdict = self._heard()
            if verdict != self._verdict:
                before, self._verdict = self.troubles, verdict
                self._news.set()
                self._news = asyncio.Event()
                if self.troubles != before:
                    self.changed()

    def _heard(self) -> Served:
        pidfd = living(self.folder)
        if pidfd is None:
            return SILENT
        os.close(pidfd)
        data = read(self.folder, SERVED)
        return decode_json(data, Served, SERVED) if data else SILENT
