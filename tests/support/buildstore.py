"""Builds on a real image store, their steps done by functions of the test."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aio.clock import SystemClock
from aio.sharing import SharedLocks
from image.build.base import Bound, Chosen, RootSource, Session, Source, TreeSource
from image.build.engine import build
from image.build.fake import FakeFetcher, FakeSession
from image.build.parts import Parts
from image.build.step import CopyStep, RunStep, WorkdirStep
from image.platforms import host_platform
from image.store import ImageStore
from model.build import BuildRequest, Done
from model.image import ImageRecord

Command = Callable[[str], int | None]


class RealFiles:
    """A StepRunner whose commands are functions of the mounted root, and whose context is a mapping."""

    def __init__(self, commands: Mapping[str, Command], context: dict[str, bytes]) -> None:
        self.commands = commands
        self.context = context
        self.ran: list[str] = []

    async def run(
        self, root: str, step: RunStep, bound: Sequence[Bound | None], session: Session, number: int
    ) -> int:
        del bound, session, number
        self.ran.append(step.args[-1])
        return await asyncio.to_thread(self.commands[step.args[-1]], root) or 0

    async def shell(
        self, root: str, step: RunStep, bound: Sequence[Bound | None], session: Session, number: int
    ) -> int:
        raise NotImplementedError

    async def choose(self, step: CopyStep, sources: Sequence[Source]) -> Chosen:
        return Chosen(key=repr([self._read(n, s) for n, s in zip(step.sources, sources, strict=True)]))

    def _read(self, name: str, source: Source) -> bytes:
        if isinstance(source, TreeSource):
            return self.context[name]
        assert isinstance(source, RootSource)
        with open(source.path + name, "rb") as file:
            return file.read()

    async def copy(self, root: str, step: CopyStep, sources: Sequence[Source]) -> None:
        self.ran.append(f"copy {' '.join(step.sources)}")
        for name, source in zip(step.sources, sources, strict=True):
            target = root + step.target + (os.path.basename(name) if step.target.endswith("/") else "")
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "wb") as file:
                file.write(self._read(name, source))

    async def workdir(self, root: str, step: WorkdirStep) -> bool:
        os.makedirs(root + step.path, exist_ok=True)
        return True


class StoreLab:
    def __init__(self, store: ImageStore, **commands: Command) -> None:
        self.store = store
        self.runner = RealFiles(commands, {})
        self.parts = Parts(
            images=store,
            snapshots=store.builds,
            runner=self.runner,
            cache=store.build_cache,
            fetcher=FakeFetcher(),
            clock=SystemClock(),
            new_id=lambda: secrets.token_hex(32),
            platform=host_platform(),
            slots=asyncio.Semaphore(8),
            turns=SharedLocks(),
        )

    async def build(self, text: str, **wishes: Any) -> Done:
        request = BuildRequest(dockerfile=text.encode(), **wishes)
        return await build(request, FakeSession(), self.parts)

    async def image(self, text: str, **wishes: Any) -> ImageRecord:
        return self.store.find((await self.build(text, **wishes)).images[0].image)

    def ran(self) -> list[str]:
        done, self.runner.ran = self.runner.ran, []
        return done


def remove(path: str) -> None:
    shutil.rmtree(path)
