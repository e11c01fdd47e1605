"""Many hosts' answers as one: what some lack is told, and nothing stays open when the reader leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

import pytest

from api.fanin import merge
from api.fanout import Outcome, per_host
from model.errors import Unavailable


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("no disk", "n1: no disk"),
        ("a\r\nSet-Cookie: b\n", "n1: a Set-Cookie: b"),
        ("\x1b[31mred\x00\x7f\x9b", "n1: ?[31mred???"),
        ("größe", "n1: gr??e"),
        ("x" * 9000, "n1: " + "x" * 3996),
    ],
)
def test_hosts_that_are_missing_are_told_in_a_header_that_http_takes(said: str, told: str) -> None:
    assert per_host(Outcome(replies=(), errors=(("n1", Unavailable(said)),))) == {"Flota-Warning": told}


def test_list_without_missing_hosts_has_no_warning() -> None:
    assert per_host(Outcome(replies=(("n1", 1),), errors=())) == {}


class Source:
    """Counts without end; `closed` once it is closed for sure, not when it is collected."""

    def __init__(self) -> None:
        self.closed = False

    async def items(self) -> AsyncIterator[int]:
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            await asyncio.sleep(0)
            self.closed = True


async def test_sources_of_a_reader_that_leaves_are_closed_before_it_goes_on() -> None:
    sources = [Source(), Source()]
    merged = merge([source.items() for source in sources], size=1)
    async with aclosing(cast("Any", merged)) as items:
        assert await anext(items) == 0
        for _ in range(10):
            await asyncio.sleep(0)  # until both wait for room
    assert [source.closed for source in sources] == [True, True]


async def test_items_of_all_sources_come_until_the_last_ends() -> None:
    async def three() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    assert sorted([item async for item in merge([three(), three()], size=1)]) == [0, 0, 1, 1, 2, 2]
