"""COPY, ADD and WORKDIR of a build's steps: the part of `image.build.base.StepRunner` that runs no program.

What one tree object can tell is worked out here, in a thread; what needs many of them, or needs files of a
root to be read or written is done by a process of its own (`image.build.copyjob`). Invariant: a process that
nobody waits for any more is dead.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from aio.supervisor import in_thread
from aio.warm import Warm
from image.build import copyjob
from image.build.archives import Limits
from image.build.base import Chosen, Source, TreeSource
from image.build.copyjob import Job, Opened, Result
from image.build.step import CopyStep, WorkdirStep
from image.unpacking import limits
from model.codec import UNREADABLE
from model.errors import Damaged, Internal

DEADLINE = 3600.0


class Copying:
    """`objects` is the folder of the object store (`image.context.objects`)."""

    def __init__(self, objects: str) -> None:
        self._objects = objects
        self._warm = Warm("image.build.copyjob")

    async def choose(self, step: CopyStep, sources: Sequence[Source]) -> Chosen:
        if not (step.exclude or step.parents) and all(isinstance(s, TreeSource) for s in sources):
            known: Chosen = await in_thread(self._chosen, step, tuple(sources))
            return known
        job = Job(verb="choose", step=step, sources=tuple(sources), objects=self._objects)
        chosen = (await self._run(job)).chosen
        assert chosen is not None
        return chosen

    def _chosen(self, step: CopyStep, sources: tuple[Source, ...]) -> Chosen:
        with ExitStack() as stack:
            return copyjob.choose(Opened(step, sources, self._objects, stack), step)

    async def copy(self, root: str, step: CopyStep, sources: Sequence[Source]) -> None:
        job = Job(
            verb="copy",
            step=step,
            sources=tuple(sources),
            objects=self._objects,
            root=root,
            limits=Limits(**limits(Path(root))),
        )
        await self._run(job)

    async def workdir(self, root: str, step: WorkdirStep) -> bool:
        made: bool = await in_thread(copyjob.make_workdir, root, step)
        return made

    async def close(self) -> None:
        await self._warm.close()

    async def _run(self, job: Job) -> Result:
        said = await self._warm.run(_told(job), deadline=DEADLINE)
        try:
            result = msgspec.json.decode(said, type=Result)
        except UNREADABLE:
            words = said.decode(errors="replace").strip()[-300:]
            if not words:
                raise Damaged("copying was killed: its files need more memory than honest ones do") from None
            raise Internal(f"copying failed: {words}") from None
        if result.error is not None:
            raise result.error.to_error()
        return result


async def _told(job: Job) -> AsyncIterator[bytes]:
    yield msgspec.msgpack.encode(job)
