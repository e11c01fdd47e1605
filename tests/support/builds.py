"""A builder in memory for tests: one Dockerfile in, what was done and the image out."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aio.clock import VirtualClock
from aio.sharing import SharedLocks
from image.build.cache import CacheRemote, MemoryCache
from image.build.engine import build
from image.build.fake import FakeFetcher, FakeRunner, FakeSession, FakeSnapshots
from image.build.parts import Parts
from image.digest import of
from image.fake import FakeImages
from model.build import BuildRequest, Done, StepBegan, StepEnded
from model.image import ImageConfig, ImageRecord
from model.status import Platform

AMD = Platform(os="linux", arch="amd64")


def base(name: str = "docker.io/library/base:latest", **config: Any) -> ImageRecord:
    return ImageRecord(
        id=of(name.encode()),
        names=(name,),
        layers=(of(b"base layer of " + name.encode()),),
        platform=AMD,
        config=ImageConfig(**config),
        created=1000.0,
    )


class Lab:
    """A host that builds. `images` are on it."""

    def __init__(
        self, images: Sequence[ImageRecord] = (), *, slots: int = 8, remote: CacheRemote | None = None
    ) -> None:
        self.clock = VirtualClock()
        self.images = FakeImages(Path("/fake"), images or (base(),))
        self.snapshots = FakeSnapshots()
        self.runner = FakeRunner(self.snapshots)
        self.cache = MemoryCache(remote)
        self.fetcher = FakeFetcher()
        numbers = itertools.count(1)
        self.parts = Parts(
            images=self.images,
            snapshots=self.snapshots,
            runner=self.runner,
            cache=self.cache,
            fetcher=self.fetcher,
            clock=self.clock,
            new_id=lambda: f"{next(numbers):064x}",
            platform=AMD,
            slots=asyncio.Semaphore(slots),
            turns=SharedLocks(),
        )
        self.session = FakeSession()

    async def build(self, text: str, *, session: FakeSession | None = None, **wishes: Any) -> Done:
        self.session = session or FakeSession(dict(self.session.roots))
        return await build(BuildRequest(dockerfile=text.encode(), **wishes), self.session, self.parts)

    async def image(self, text: str, **wishes: Any) -> ImageRecord:
        done = await self.build(text, **wishes)
        return self.images.images[done.images[0].image]

    def names(self) -> list[str]:
        """Of the last build's steps."""
        return [said.name for said in self.session.heard if isinstance(said, StepBegan)]

    def cached(self) -> list[str]:
        """Of the last build's steps those that were in the cache."""
        ended = {said.step for said in self.session.heard if isinstance(said, StepEnded) and said.cached}
        return [s.name for s in self.session.heard if isinstance(s, StepBegan) and s.step in ended]

    def ran(self) -> list[str]:
        """What was done since the last call."""
        done, self.runner.ran = self.runner.ran, []
        return done
