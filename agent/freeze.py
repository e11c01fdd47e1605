"""Standing still for a while: nothing runs in a container while its files are read as an image.

A file in the bundle says so before it is done, so that an agent that dies meanwhile leaves no container
frozen for good: the next one thaws it. Invariant: what a person paused stays paused, what is told to stop is
not held up, and no process is about to enter a container that stands still.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from agent.context import Context
from agent.record import Local
from aio.together import to_its_end
from model.errors import NotFound, WrongState
from model.ids import InstanceId, short

FROZEN = "frozen"
"""In the bundle, on a tmpfs as all there, so it ends with the boot."""
PATIENCE = 30.0
"""Seconds that a process which is to enter waits, less than who asked for it waits for an answer."""


@contextlib.asynccontextmanager
async def still(context: Context, record: Callable[[], Local]) -> AsyncIterator[None]:
    """Until the block ends, if it runs and is not paused already. One after the other: whoever is done first
    would let it go on under the next."""
    instance = record().instance
    async with context.entrances.of(instance).alone():
        before = record()
        if not before.running or before.paused or before.switching:
            yield
            return
        mark = context.bundle(instance) / FROZEN
        mark.touch()
        try:
            with contextlib.suppress(NotFound, WrongState):  # it ended just now
                await context.runtime.pause(instance)
            yield
        finally:
            await to_its_end(thaw(context, record()))


async def thaw(context: Context, record: Local) -> None:
    """Let it go on, if it was made to stand still here and nobody else wants it to. Idempotent."""
    mark = context.bundle(record.instance) / FROZEN
    if not mark.exists():
        return
    if not record.paused and not record.switching:
        with contextlib.suppress(NotFound, WrongState):
            await context.runtime.resume(record.instance)
    mark.unlink(missing_ok=True)


@contextlib.asynccontextmanager
async def entering(context: Context, instance: InstanceId) -> AsyncIterator[None]:
    """While a process is started in it, which can't be in one that stands still. Raises WrongState after
    `PATIENCE` seconds."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(PATIENCE):
                await stack.enter_async_context(context.entrances.of(instance).shared())
        except TimeoutError as error:
            raise WrongState(
                f"container {short(instance)} is held still while an image is made of it",
                hint="Try again when the commit is over",
            ) from error
        yield


async def over(context: Context, instance: InstanceId) -> None:
    """Wait until it goes on."""
    async with context.entrances.of(instance).shared():
        return


def is_still(context: Context, instance: InstanceId) -> bool:
    return (context.bundle(instance) / FROZEN).exists()
