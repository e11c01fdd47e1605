"""Work of which all outcomes are wanted, done at the same time; or one that is never left half-way.

Invariant: nothing of it runs on when it is over: the first failure, or a cancellation, ends the rest, but for
what runs `to_its_end`, for which a cancellation waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The outcomes, in order. Raises the first failure."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except BaseExceptionGroup as failures:
        raise leaf(failures) from None
    return [task.result() for task in tasks]


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


def leaf(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first failure that is no group."""
    first = failures.exceptions[0]
    return leaf(first) if isinstance(first, BaseExceptionGroup) else first
