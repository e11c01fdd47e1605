"""Forwarding a request to the host that can answer it, and everything after it verbatim.

Invariant: what the host is asked is what was authorised here (same method, the resolved id, the decoded query
re-encoded); after its head both directions are raw, and the end of either side ends the other. The client of
a host that is given up is told so in a last frame, where the stream is between two (`api.edges`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from aiohttp import web

import model.build as build
from api.channels import Dropped, Pipe
from api.edges import ChunkEdges, Edges, FrameEdges, NoEdges
from api.hijack import Connection, Taken, asks_for, take_over
from api.hostcall import QueryValue, Reply, head, read_head, read_reply, target
from api.routes.route import ControllerCall
from api.streaming import FRAMES, error_body
from model.codec import encode_json
from model.errors import ErrorBody, Unavailable
from model.streams import ERROR, PROTOCOL, pack

CHUNK = 1 << 16


@dataclass(frozen=True)
class Upgrade:
    """A stream in both directions that a host offers: how its frames are cut, and how an error is said in
    one."""

    protocol: str
    edges: Callable[[], Edges]
    failed: Callable[[ErrorBody], bytes]


STREAM = Upgrade(PROTOCOL, FrameEdges, lambda error: pack(ERROR, encode_json(error)))
BUILD = Upgrade(
    build.PROTOCOL,
    lambda: FrameEdges(build.HEAD, build.frame_size),
    lambda error: build.pack(build.Failed(error=error)),
)


async def to_instance(
    call: ControllerCall, action: str, query: Mapping[str, QueryValue], body: bytes = b""
) -> web.StreamResponse:
    """Hand a call on one container to its host."""
    ident, host = call.port.locate_instance(call.ref())
    pipe = await call.port.open_pipe(host)
    path = target(f"/v1/instances/{quote(ident)}/{action}", query)
    return await forward(call.request, pipe, path, body)


async def build_on(call: ControllerCall, wish: build.BuildPlace) -> web.StreamResponse:
    """Hand a build to a host of the controller's choice, which is the first that the client hears."""
    with call.port.place_build(wish) as (host, placed):
        pipe = await call.port.open_pipe(host)
        return await forward(call.request, pipe, "/v1/builds", upgrade=BUILD, first=build.pack(placed))


async def forward(
    request: web.Request,
    pipe: Pipe,
    path: str,
    body: bytes = b"",
    *,
    upgrade: Upgrade = STREAM,
    first: bytes = b"",
) -> web.StreamResponse:
    """Send the request, wait for the head of its answer, then join both connections; a client that asked for
    the stream gets `first` before anything of the host's. Raises Unavailable when no answer comes, and what a
    host that refuses an upgrade says; the client's connection ends with the answer."""
    upgrading = asks_for(request, upgrade.protocol)
    edges: Edges
    try:
        pipe.writer.write(_head(request, path, body, protocol=upgrade.protocol if upgrading else "") + body)
        if upgrading:
            await (await read_reply(pipe)).checked()
            taken, edges = take_over(request, upgrade.protocol), upgrade.edges()
            taken.writer.write(first)
        else:
            came, reply = await read_head(pipe)
            taken, edges = take_over(request), _edges(reply)
            taken.writer.write(came)
        await join(taken, pipe, edges, upgrade)
    finally:
        pipe.writer.close()
    return Taken()


def _head(request: web.Request, path: str, body: bytes, *, protocol: str) -> bytes:
    headers = {"Connection": "close"}
    if protocol:
        headers = {"Connection": "Upgrade", "Upgrade": protocol}
    if body:
        headers |= {"Content-Type": "application/json"}
    if request.method != "GET":
        headers |= {"Content-Length": str(len(body))}
    return head(request.method, path, headers)


def _edges(reply: Reply) -> Edges:
    framed = reply.headers.get("content-type") == FRAMES
    chunked = reply.headers.get("transfer-encoding", "").lower() == "chunked"
    return ChunkEdges() if framed and chunked else NoEdges()


async def join(client: Connection, pipe: Pipe, edges: Edges, kind: Upgrade = STREAM) -> None:
    """Copy both ways until the host's side ends. The client's end is passed on: as a half-close where the
    pipe can carry one, by closing it where it can't (TLS)."""
    try:
        async with asyncio.TaskGroup() as group:
            up = group.create_task(_upwards(client.reader, pipe.writer))
            await _downwards(pipe.reader, client.writer, edges, kind)
            up.cancel()
    finally:
        client.writer.close()


async def _downwards(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, edges: Edges, kind: Upgrade
) -> None:
    try:
        while data := await reader.read(CHUNK):
            edges.feed(data)
            writer.write(data)
            await writer.drain()
    except Dropped as error:
        writer.write(edges.last(kind.failed(error_body(Unavailable(str(error))))))
    except OSError:
        return


async def _upwards(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _copy(reader, writer)
    if writer.can_write_eof() and not writer.is_closing():
        writer.write_eof()
    else:
        writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until the reader's end, or until nobody listens: a closed writer of TLS can't be written to."""
    try:
        while (data := await reader.read(CHUNK)) and not writer.is_closing():
            writer.write(data)
            await writer.drain()
    except OSError:
        return
