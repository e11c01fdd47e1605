"""A registry: its content, its uploads, and the loop that takes away what nobody holds.

Invariant: while it is open, it is the only one on its folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from aio.clock import Clock
from aio.supervisor import Supervisor, in_thread
from image.registry.server.limits import Limits
from image.registry.server.store import Content
from image.registry.server.uploads import Run, Uploads

log = logging.getLogger("flota.registry")
THREADS = 8
"""Of its own: a slow disk is not to hold up what else the process does in threads."""


class Registry:
    """Made by `opened`."""

    def __init__(self, content: Content, uploads: Uploads, clock: Clock, limits: Limits, run: Run) -> None:
        self.run = run
        self.content = content
        self.uploads = uploads
        self.clock = clock
        self.limits = limits
        self.large = asyncio.Semaphore(limits.large)
        """Held for each large manifest that is in memory."""
        self.reading = asyncio.Lock()
        """Held while one of them is parsed."""

    async def tidy(self) -> None:
        """Once: uploads that are given up, blobs that nobody holds."""
        dropped = await self.uploads.expire()
        gone = await self.run(self.content.collect)
        if dropped or gone:
            log.info("%d blobs that no manifest holds and %d uploads are gone", gone, dropped)

    async def keep_tidy(self) -> None:
        while True:
            await self.tidy()
            await self.clock.sleep(self.limits.collect_every)


@contextlib.asynccontextmanager
async def opened(folder: Path, clock: Clock, limits: Limits) -> AsyncIterator[Registry]:
    """Raises Damaged, InUse, Unsupported, Unavailable."""
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="registry")
    run = partial(in_thread, pool=pool)
    content: Content | None = None
    try:
        content = await run(Content.open, folder, limits, clock.now)
        assert content is not None
        uploads = Uploads(content, clock, run)
        await uploads.open()
        registry = Registry(content, uploads, clock, limits, run)
        async with Supervisor("registry") as supervisor:
            supervisor.start("tidy", registry.keep_tidy, restart=True)
            yield registry
    finally:
        if content is not None:
            await run(content.close)
        pool.shutdown()
