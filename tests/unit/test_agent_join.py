"""What a controller answers to a host that joins, however its bytes come."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from agent.join import MAX_BODY, _body
from model.errors import Unauthenticated, Unavailable


class Content:
    """A body that comes in parts; as aiohttp's, `read` gives no more than is here."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = parts

    async def read(self, size: int) -> bytes:
        return self._parts.pop(0)[:size] if self._parts else b""

    async def iter_any(self) -> AsyncIterator[bytes]:
        while part := await self.read(1 << 16):
            yield part


class Reply:
    url = "https://192.0.2.1:7420/v1/join"

    def __init__(self, status: int, *parts: bytes) -> None:
        self.status = status
        self.content = Content(list(parts))


def reply(status: int, *parts: bytes) -> Any:
    return cast("Any", Reply(status, *parts))


async def test_answer_that_comes_in_parts_is_read_to_its_end() -> None:
    assert await _body(reply(200, b'{"host', b'_id": ', b'"a"}')) == b'{"host_id": "a"}'


async def test_refusal_that_comes_in_parts_is_told_in_its_words() -> None:
    with pytest.raises(Unauthenticated, match="the token has expired"):
        await _body(reply(401, b'{"message": "the token ', b'has expired", "code": "unauthenticated"}'))


async def test_answer_without_end_is_refused() -> None:
    with pytest.raises(Unavailable, match="answers with more than"):
        await _body(reply(200, *[bytes(1 << 16)] * (MAX_BODY // (1 << 16) + 1)))
