"""Waiting for a condition with a deadline; the only loop with a pause in the tests.

Only a look that began after the deadline is the last: one that takes long itself, or a machine that stood
still, tells nothing of the state at the deadline.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
A = TypeVar("A", bound=tuple[Any, ...])


def wait_until(condition: Callable[[], T], *, deadline: float, what: str = "", pause: float = 0.02) -> T:
    """The first truthy value of `condition`; AssertionError naming `what` after `deadline` seconds."""
    end = time.monotonic() + deadline
    while True:
        late = time.monotonic() > end
        value = condition()
        if value:
            return value
        if late:
            raise AssertionError(f"not within {deadline:g} s: {what or condition}; last: {value!r}")
        time.sleep(pause)


async def until(
    condition: Callable[[], T | Awaitable[T]], *, deadline: float, what: str = "", pause: float = 0.005
) -> T:
    """As `wait_until`, for coroutines; `condition` may itself be asynchronous."""
    end = time.monotonic() + deadline
    while True:
        late = time.monotonic() > end
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        if late:
            raise AssertionError(f"not within {deadline:g} s: {what or condition}; last: {value!r}")
        await asyncio.sleep(pause)


def all_at_once(looks: Mapping[str, Callable[[], T]]) -> dict[str, T]:
    """What each look finds."""
    return {
        name: found for (name,), found in side_by_side(lambda n: looks[n](), ((n,) for n in looks)).items()
    }


def side_by_side(call: Callable[..., T], cases: Iterable[A]) -> dict[A, T]:
    """What `call` says of each case, all asked at once: that nobody answers takes its time to be heard."""
    asked = list(cases)
    with ThreadPoolExecutor(max(1, len(asked))) as pool:
        return dict(zip(asked, pool.map(lambda case: call(*case), asked), strict=True))
