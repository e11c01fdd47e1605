"""Work of which all outcomes are wanted, done at the same time; or one that is never left half-way.

Invariant: nothing of it runs on when it is over: the first failure, or a cancellation, ends the rest, but for
what runs `to_its_end`, for which a cancellation waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar, overload

T = TypeVar("T")
U = TypeVar("U")


@overload
async def together(work: tuple[Coroutine[Any, Any, T], Coroutine[Any, Any, U]]) -> tuple[T, U]: ...
@overload
async def together(work: Iterable[Coroutine[Any, Any, T]]) -> tuple[T, ...]: ...
async def together(work: Iterable[Coroutine[Any, Any, Any]]) -> tuple[Any, ...]:
    """The outcomes, in order. Raises the first failure. (A TaskGroup of Python 3.11 tells of a failure though
    it was cancelled too: whoever lets failures pass would go on, and never end.)"""
    coroutines, loop = tuple(work), asyncio.get_running_loop()
    tasks = [loop.create_task(one) for one in coroutines]
    failed: asyncio.Task[Any] | None = None
    try:
        if tasks:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        failed = next((t for t in tasks if t.done() and not t.cancelled() and t.exception()), None)
    finally:
        await _ended(tasks)
    return tuple(task.result() for task in ((failed,) if failed is not None else tasks))


async def _ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancelled, those that run, and over. A cancellation that comes meanwhile is raised then."""
    cancelled: asyncio.CancelledError | None = None
    running = {task for task in tasks if not task.done()}
    for task in running:
        task.cancel()
    while running:
        try:
            _, running = await asyncio.wait(running)
        except asyncio.CancelledError as error:
            cancelled, running = error, {task for task in running if not task.done()}
    for task in tasks:
        if not task.cancelled():
            task.exception()  # looked at: the first was told
    if cancelled is not None:
        raise cancelled


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Its outcome. A cancellation that comes meanwhile is raised once it has ended."""
    task = asyncio.get_running_loop().create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # looked at: nobody is left to tell
    raise cancelled
