"""Standing still for a while: nothing runs in a container while its files are read as an image.

A file in the bundle says so before it is done, so that an agent that dies meanwhile leaves no container
frozen for good: the next one thaws it. Invariant: what a person paused stays paused, and what is told to stop
is not held up.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

from agent.context import Context
from agent.record import Local
from aio.together import to_its_end
from model.errors import NotFound, WrongState
from model.ids import InstanceId, short

FROZEN = "frozen"
"""In the bundle, on a tmpfs as all there, so it ends with the boot."""
LOOK = 0.02
"""Seconds between two looks."""


@contextlib.asynccontextmanager
async def still(context: Context, record: Callable[[], Local]) -> AsyncIterator[None]:
    """Until the block ends, if it runs and is not paused already. One after the other: whoever is done first
    would let it go on under the next."""
    await over(context, record().instance)
    before = record()
    if not before.running or before.paused or before.switching:
        yield
        return
    mark = context.bundle(before.instance) / FROZEN
    mark.touch()
    try:
        with contextlib.suppress(NotFound, WrongState):  # it ended just now
            await context.runtime.pause(before.instance)
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


async def over(context: Context, instance: InstanceId, *, patience: float = 3600.0) -> None:
    """Wait until it goes on: what is to run in it can't. Raises WrongState after `patience` seconds."""
    end = context.clock.now() + patience
    while is_still(context, instance):
        if context.clock.now() > end:
            raise WrongState(f"container {short(instance)} is held still while an image is made of it")
        await context.clock.sleep(LOOK)


def is_still(context: Context, instance: InstanceId) -> bool:
    return (context.bundle(instance) / FROZEN).exists()
