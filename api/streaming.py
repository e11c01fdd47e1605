"""Replies that grow: frames and newline-delimited JSON. Headers leave at once, the client's pace is kept.

A failure after the headers is said in the stream itself: an ERROR frame, or a last line `{"error": …}`.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, cast

from aiohttp import web

from model.codec import encode_json
from model.errors import ErrorBody, FlotaError, Internal
from model.streams import ERROR, pack

log = logging.getLogger("flota.api")
FRAMES = "application/vnd.flota.stream"
NDJSON = "application/x-ndjson"
TAR = "application/x-tar"
NO_HEADERS: Mapping[str, str] = {}


def error_body(error: Exception) -> ErrorBody:
    """What a client is told of a failure in mid-stream; what nobody foresaw goes to the log."""
    if isinstance(error, FlotaError):
        return ErrorBody.of(error)
    log.error("a stream failed", exc_info=error)
    return ErrorBody.of(Internal("internal error", hint="The log of this process has the details"))


async def begin(request: web.Request, kind: str, more: Mapping[str, str] = NO_HEADERS) -> web.StreamResponse:
    """Send the headers of a reply without length."""
    response = web.StreamResponse(headers={"Content-Type": kind, "Cache-Control": "no-cache", **more})
    response.enable_chunked_encoding()
    await response.prepare(request)
    await response.write(b"")
    return response


async def frames(request: web.Request, source: AsyncIterator[tuple[int, bytes]]) -> web.StreamResponse:
    """(type, payload) pairs as frames."""
    response = await begin(request, FRAMES)
    async with aclosing(cast("AsyncGenerator[tuple[int, bytes], None]", source)) as items:
        try:
            async for kind, payload in items:
                await response.write(pack(kind, payload))
        except ConnectionError:
            return response
        except Exception as error:
            await response.write(pack(ERROR, encode_json(error_body(error))))
    await response.write_eof()
    return response


async def chunks(request: web.Request, source: AsyncIterator[bytes]) -> web.StreamResponse:
    """Bytes as they come. They have no place for words of a failure: it breaks the connection off."""
    response = await begin(request, "application/octet-stream")
    async with aclosing(cast("AsyncGenerator[bytes, None]", source)) as parts:
        async for part in parts:
            await response.write(part)
    await response.write_eof()
    return response


async def lines(request: web.Request, source: AsyncIterator[Any]) -> web.StreamResponse:
    """Values as lines of JSON."""
    response = await begin(request, NDJSON)
    async with aclosing(cast("AsyncGenerator[Any, None]", source)) as items:
        try:
            async for item in items:
                await response.write(encode_json(item) + b"\n")
        except ConnectionError:
            return response
        except Exception as error:
            await response.write(encode_json({"error": error_body(error)}) + b"\n")
    await response.write_eof()
    return response


async def octets(
    request: web.Request, source: AsyncIterator[bytes], kind: str, more: Mapping[str, str] = NO_HEADERS
) -> web.StreamResponse:
    """Plain bytes. What goes wrong before the first of them is the reply itself; later the connection is
    broken off, as nothing else would tell a whole reply from a part."""
    async with aclosing(cast("AsyncGenerator[bytes, None]", source)) as pieces:
        first = await anext(pieces, b"")
        response = await begin(request, kind, more)
        try:
            await response.write(first)
            async for piece in pieces:
                await response.write(piece)
        except ConnectionError:
            return response
        except Exception as error:
            body = error_body(error)
            log.warning("a transfer is broken off: %s", body.message)
            if request.transport is not None:
                request.transport.abort()
            return response
    await response.write_eof()
    return response
