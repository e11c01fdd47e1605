"""A registry: its content, its uploads, and the loop that takes away what nobody holds.

Invariant: while it is open, it is the only one on its folder.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

from aio.clock import Clock
from aio.supervisor import Supervisor, in_thread
from image.registry.server.limits import Limits
from image.registry.server.store import Content
from image.registry.server.uploads import Uploads

log = logging.getLogger("flota.registry")


class Registry:
    """Made by `opened`."""

    def __init__(self, content: Content, uploads: Uploads, clock: Clock, limits: Limits) -> None:
        self.content = content
        self.uploads = uploads
        self.clock = clock
        self.limits = limits

    async def tidy(self) -> None:
        """Once: uploads that are given up, blobs that nobody holds."""
        dropped = await self.uploads.expire()
        gone = await in_thread(self.content.collect)
        if dropped or gone:
            log.info("%d blobs that no manifest holds and %d uploads are gone", gone, dropped)

    async def keep_tidy(self) -> None:
        while True:
            await self.tidy()
            await self.clock.sleep(self.limits.collect_every)


@contextlib.asynccontextmanager
async def opened(folder: Path, clock: Clock, limits: Limits) -> AsyncIterator[Registry]:
    """Raises Damaged, InUse, Unsupported, Unavailable."""
    content: Content = await in_thread(Content.open, folder, limits, clock.now)
    try:
        uploads = Uploads(content, clock)
        await uploads.open()
        registry = Registry(content, uploads, clock, limits)
        async with Supervisor("registry") as supervisor:
            supervisor.start("tidy", registry.keep_tidy, restart=True)
            yield registry
    finally:
        await in_thread(content.close)
