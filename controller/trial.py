"""A controller of a release that is on trial: its upgrade is not confirmed, so it may be gone back from.

The way back may be the store's copy of before (`deploy.hostdaemons`: `store.upgrading`, `to` in it the
release for whose sake it was made); what commands had stored since would be lost with it. Invariant: no
command is taken before the copy is out of the way, or is marked, on the disk, as not to be put back.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from aio.clock import Clock
from aio.durable import write_file
from aio.supervisor import in_thread
from model.errors import Unavailable

log = logging.getLogger("flota.controller")
TERM = 600.0
"""Seconds for which nobody may confirm: longer than an upgrade waits for a controller and its hosts."""


class Trial:
    """`folder`: the controller's state; `release`: what runs. Without either there is no trial."""

    def __init__(self, folder: Path | None = None, release: str = "", *, term: float = TERM) -> None:
        self._copy = folder / "store.upgrading" if folder is not None and release else None
        self._release = release
        self._term = term

    def pending(self) -> bool:
        if self._copy is None:
            return False
        try:
            copied_for = (self._copy / "to").read_text().strip()
        except (FileNotFoundError, NotADirectoryError):
            copied_for = ""
        if copied_for == self._release and not (self._copy / "confirmed").exists():
            return True
        self._copy = None  # it never comes back while this release runs
        return False

    def check(self) -> None:
        """Raises Unavailable while it goes on."""
        if self.pending():
            raise Unavailable(
                f"the controller's upgrade to {self._release} is not confirmed yet: it takes no commands",
                hint="Try again in a moment. Was the upgrade cut? Finish it: flota host upgrade --all; "
                f"{self._term / 60:g} minutes after its start the controller goes on without",
            )

    async def run(self, clock: Clock) -> None:
        """Whoever was to confirm it may be gone: after its term it is over."""
        if not self.pending():
            return
        await clock.sleep(self._term)
        if self._copy is not None and self.pending():
            await in_thread(write_file, os.fspath(self._copy / "confirmed"), b"")
            log.warning("nobody confirmed the upgrade to %s: commands are taken from now on", self._release)
