"""Replies of progress: one JSON message per line.

Invariant: a failure before anything was shown is the reply's own status; one after that is its last message.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, cast

from aiohttp import web

from api.docker.errors import Refusal, told
from api.docker.images.progress import Message, failed
from api.streaming import begin, error_body
from model.codec import encode_json
from model.errors import FlotaError


class Said:
    """A stream of messages, begun with its first one."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._response: web.StreamResponse | None = None

    async def begin(self) -> web.StreamResponse:
        """Whatever comes now is a message of it."""
        if self._response is None:
            self._response = await begin(self._request, "application/json")
        return self._response

    async def say(self, message: Message) -> None:
        response = await self.begin()
        await response.write(encode_json(message) + b"\r\n")

    async def fail(self, error: Exception) -> web.StreamResponse:
        """Its last message, or raised where it is the first."""
        if self._response is None:
            raise error
        await self.say(failed(words_of(error), getattr(error, "exit_code", 0)))
        return await self.end()

    async def end(self) -> web.StreamResponse:
        response = await self.begin()
        await response.write_eof()
        return response


def words_of(error: Exception) -> str:
    if isinstance(error, Refusal):
        return error.message
    return told(error)[1] if isinstance(error, FlotaError) else error_body(error).message


async def messages(
    request: web.Request, source: AsyncIterator[Message], *, in_stream: bool = False
) -> web.StreamResponse:
    """All that the source gives, and how it fails; `in_stream`: as a message, though it be the first.

    The reply's head waits for the first message all the same: a client that sends an archive and asks for
    quiet (skopeo) takes the head for the end and hangs up.
    """
    said = Said(request)
    async with aclosing(cast("AsyncGenerator[Any, None]", source)) as items:
        try:
            async for message in items:
                await said.say(message)
        except ConnectionError:
            return await _gone(said)
        except Exception as error:
            if in_stream:
                await said.begin()
            return await said.fail(error)
    return await said.end()


async def _gone(said: Said) -> web.StreamResponse:
    """Nobody reads any more."""
    try:
        return await said.end()
    except ConnectionError:
        return web.Response(status=499)
