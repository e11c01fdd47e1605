"""What builds on a host are done with, and how a step fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from aio.clock import Clock
from aio.sharing import SharedLocks
from image.base import FindLogin, Images, nobody
from image.build.base import Fetcher, Snapshots, StepRunner
from image.build.cache import Cache
from image.build.clientlayout import Layouts
from image.sbom.packages import Inventory
from model.errors import CommandFailed
from model.ids import IdSource
from model.status import Platform

Scan = Callable[[str], Awaitable[Inventory]]
"""Packages of the files that are mounted there."""
Inline = Callable[[Sequence[str]], Awaitable[str]]
"""Records of the build's cache for the configuration of an image with these diff ids."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What builds on this host are done with. `slots`: steps at a time, of all builds; `turns`: by the key of
    a step that is being done."""

    images: Images
    snapshots: Snapshots
    runner: StepRunner
    cache: Cache
    fetcher: Fetcher
    clock: Clock
    new_id: IdSource
    platform: Platform
    slots: asyncio.Semaphore
    turns: SharedLocks
    login: FindLogin = nobody
    inline: Inline | None = None
    scan: Scan | None = None
    layouts: Layouts | None = None


class StepFailed(CommandFailed):
    """A RUN whose process did not end with 0."""

    def __init__(self, message: str, *, exit_code: int, line: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code
        self.line = line
