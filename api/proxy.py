"""Forwarding a request to the host that can answer it, and everything after it verbatim.

Invariant: what the host is asked is what was authorised here (same method, the resolved id, the decoded query
re-encoded); after its head both directions are raw, and the end of either side ends the other. The client of
a host that is given up is told so in a last frame, where the stream is between two (`api.edges`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import quote

from aiohttp import web

from api.channels import Dropped, Pipe
from api.edges import ChunkEdges, Edges, FrameEdges, NoEdges
from api.hijack import Connection, Taken, asks_for, take_over
from api.hostcall import QueryValue, Reply, head, read_head, read_reply, target
from api.routes.route import ControllerCall
from api.streaming import FRAMES, error_body
from model.codec import encode_json
from model.errors import Unavailable
from model.streams import ERROR, PROTOCOL, pack

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
    """Send the request, wait for the head of its answer, then join both connections. Raises Unavailable
    when no answer comes, and what a host that refuses an upgrade says; the client's connection ends with the
    answer."""
    upgrade = asks_for(request, PROTOCOL)
    edges: Edges
    try:
        pipe.writer.write(_head(request, path, body, upgrade=upgrade) + body)
        if upgrade:
            await (await read_reply(pipe)).checked()
            taken, edges = take_over(request, PROTOCOL), FrameEdges()
        else:
            came, reply = await read_head(pipe)
            taken, edges = take_over(request), _edges(reply)
            taken.writer.write(came)
        await join(taken, pipe, edges)
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


def _edges(reply: Reply) -> Edges:
    framed = reply.headers.get("content-type") == FRAMES
    chunked = reply.headers.get("transfer-encoding", "").lower() == "chunked"
    return ChunkEdges() if framed and chunked else NoEdges()


async def join(client: Connection, pipe: Pipe, edges: Edges) -> None:
    """Copy both ways until the host's side ends. The client's end is passed on: as a half-close where the
    pipe can carry one, by closing it where it can't (TLS)."""
    try:
        async with asyncio.TaskGroup() as group:
            up = group.create_task(_upwards(client.reader, pipe.writer))
            await _downwards(pipe.reader, client.writer, edges)
            up.cancel()
    finally:
        client.writer.close()


async def _downwards(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, edges: Edges) -> None:
    try:
        while data := await reader.read(CHUNK):
            edges.feed(data)
            writer.write(data)
            await writer.drain()
    except Dropped as error:
        writer.write(edges.last(pack(ERROR, encode_json(error_body(Unavailable(str(error)))))))
    except OSError:
        return


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
