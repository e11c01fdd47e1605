"""Forwarding a request to the host that can answer it, and everything after it verbatim.

Invariant: what the host is asked is what was authorised here (same method, the resolved id, the decoded query
re-encoded); after its first byte both directions are raw, and the end of either side ends the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import quote

from aiohttp import web

from api.hijack import Connection, Taken, asks_for, take_over
from api.hostcall import FIRST_BYTE, QueryValue, head, read_reply, target
from api.ports import Pipe
from api.routes.route import ControllerCall
from model.errors import Unavailable
from model.streams import PROTOCOL

CHUNK = 1 << 16


async def to_instance(
    call: ControllerCall, action: str, query: Mapping[str, QueryValue], body: bytes = b""
) -> web.StreamResponse:
    """Hand a call on one container to its host."""
    ident, host = call.port.locate_instance(call.ref())
    pipe = await call.port.open_pipe(host)
    path = target(f"/v1/instances/{quote(ident)}/{action}", query)
    return await forward(call.request, pipe, path, body)


async def forward(request: web.Request, pipe: Pipe, path: str, body: bytes = b"") -> web.StreamResponse:
    """Send the request, wait for the first byte of its answer, then join both connections. Raises Unavailable
    when no answer comes, and what a host that refuses an upgrade says; the client's connection ends with the
    answer."""
    upgrade = asks_for(request, PROTOCOL)
    try:
        pipe.writer.write(_head(request, path, body, upgrade=upgrade) + body)
        if upgrade:
            await (await read_reply(pipe)).checked()
            taken = take_over(request, PROTOCOL)
        else:
            first = await _first(pipe)
            taken = take_over(request)
            taken.writer.write(first)
        await join(taken, pipe)
    finally:
        pipe.writer.close()
    return Taken()


def _head(request: web.Request, path: str, body: bytes, *, upgrade: bool) -> bytes:
    headers = {"Connection": "close"}
    if upgrade:
        headers = {"Connection": "Upgrade", "Upgrade": PROTOCOL}
    if body:
        headers |= {"Content-Type": "application/json"}
    if request.method != "GET":
        headers |= {"Content-Length": str(len(body))}
    return head(request.method, path, headers)


async def _first(pipe: Pipe) -> bytes:
    try:
        async with asyncio.timeout(FIRST_BYTE):
            data = await pipe.reader.read(CHUNK)
    except TimeoutError as error:
        raise Unavailable(f"the host does not answer within {FIRST_BYTE:g} s") from error
    except OSError as error:
        raise Unavailable("the host ended the connection before its answer") from error
    if not data:
        raise Unavailable("the host ended the connection before its answer")
    return data


async def join(client: Connection, pipe: Pipe) -> None:
    """Copy both ways until the host's side ends. The client's end is passed on: as a half-close where the
    pipe can carry one, by closing it where it can't (TLS)."""
    try:
        async with asyncio.TaskGroup() as group:
            up = group.create_task(_upwards(client.reader, pipe.writer))
            await _copy(pipe.reader, client.writer)
            up.cancel()
    finally:
        client.writer.close()


async def _upwards(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _copy(reader, writer)
    if writer.can_write_eof() and not writer.is_closing():
        writer.write_eof()
    else:
        writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until the reader's end, or until nobody listens."""
    try:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    except OSError:
        return
