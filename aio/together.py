"""Work of which all outcomes are wanted, done at the same time.

Invariant: nothing of it runs on when it is over: the first failure, or a cancellation, ends the rest.
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


def leaf(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first failure that is no group."""
    first = failures.exceptions[0]
    return leaf(first) if isinstance(first, BaseExceptionGroup) else first
