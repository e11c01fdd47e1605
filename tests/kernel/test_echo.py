"""Echo requests to this machine itself."""

from __future__ import annotations

import asyncio
import time

import pytest

from net.kernel.echo import PATIENCE, Echo, ask

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("loopback", ["127.0.0.1", "::1"])
async def test_answers_that_came_while_the_process_was_kept_from_running_count(loopback: str) -> None:
    """As on a machine that is too busy: each time it may run, its patience is over."""
    asking = asyncio.ensure_future(ask([Echo(source=loopback, target=loopback, size=84)] * 40))
    while not asking.done():
        await asyncio.sleep(0)
        end = time.monotonic() + 1.5 * PATIENCE
        while time.monotonic() < end:
            pass
    assert [answer.seconds is not None for answer in asking.result()] == [True] * 40
