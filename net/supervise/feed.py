"""Telling a process that outlives us what to serve, and hearing what it made of it.

Invariant: the file is written only when it changed, and a verdict counts only while the process that gave it
lives.
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
from net.supervise.files import SERVED, STATE, Served, digest, living, prepare, read, refusals, write_state

log = logging.getLogger("flota.net")

CHECK = 5.0
"""Seconds between looks without a bell; a state that could not be written is written then."""
SILENT = Served(digest="")


class StateFeed:
    """`what` begins the words about it; `changed` is called when `troubles` are others than before. What an
    earlier writer left is good until there is better."""

    def __init__(self, folder: str, *, group: int, what: str, check: float = CHECK) -> None:
        self.folder = folder
        self.changed: Callable[[], None] = lambda: None
        self._group, self._what, self._check = group, what, check
        self._data, self._digest = b"", ""
        self._trouble = ""
        self._verdict = SILENT
        self._news = asyncio.Event()
        if found := read(folder, STATE):
            self._data, self._digest = found, digest(found)
        self._written = bool(found)

    @property
    def troubles(self) -> tuple[str, ...]:
        return tuple(word for word in (self._trouble, *refusals(self._verdict, self._what)) if word)

    def update(self, data: bytes) -> None:
        """Serve this from now on. Cheap when nothing changed; never waits."""
        if data == self._data and self._written:
            return
        self._data, self._digest = data, digest(data)
        self._write()

    async def served(self, deadline: float) -> bool:
        """Wait until the last state is served; False after `deadline` seconds, or when it is refused."""
        self._look()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline):
                while self._verdict.digest != self._digest:
                    news = self._news
                    await news.wait()
        return self._verdict.digest == self._digest and not self._verdict.refused

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

    def _write(self) -> None:
        trouble = ""
        try:
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
