"""A client of BuildKit's protocols as buildx is one: a session that it serves, and calls over `/grpc`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from api.docker.buildkit.grpc import Channel, Handler, ServerCall, served
from api.docker.buildkit.http2 import Http2
from api.docker.buildkit.messages import DATA, FIN, REQUEST, Packet, Stat

DIFFCOPY = "/moby.filesync.v1.FileSync/DiffCopy"


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def upgraded(path: str, where: str, *headers: str) -> AsyncIterator[Streams]:
    """A connection that the server made h2c of. Raises AssertionError with what it said instead."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        await upgrade(reader, writer, where, *headers)
        yield reader, writer
    finally:
        writer.close()


async def upgrade(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, where: str, *headers: str
) -> None:
    """Raises AssertionError with what was said instead."""
    lines = [
        f"POST {where} HTTP/1.1",
        "Host: docker",
        "Connection: Upgrade",
        "Upgrade: h2c",
        "Content-Length: 0",
        *headers,
    ]
    writer.write("".join(f"{one}\r\n" for one in lines).encode() + b"\r\n")
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    if not head.startswith(b"HTTP/1.1 101 "):
        length = next(one for one in head.lower().split(b"\r\n") if one.startswith(b"content-length:"))
        raise AssertionError(head.decode() + (await reader.readexactly(int(length[15:]))).decode())


def gives(files: Mapping[str, Mapping[str, bytes]]) -> Handler:
    """Folders by their names, each of files in one level."""

    async def diffcopy(call: ServerCall) -> None:
        there = files[call.metadata["dir-name"]]
        wanted = call.metadata.get("followpaths", "")
        names = sorted(name for name in there if not wanted or name in wanted.split(","))
        for name in names:
            stat = Stat(path=name.encode(), mode=0o644, size=len(there[name]))
            await call.send(Packet(stat=stat))
        await call.send(Packet())
        while (packet := await call.receive(Packet)) is not None:
            if packet.type == REQUEST:
                await call.send(Packet(type=DATA, id=packet.id, data=there[names[packet.id]]))
                await call.send(Packet(type=DATA, id=packet.id))
            elif packet.type == FIN:
                await call.send(Packet(type=FIN))
                return

    return diffcopy


@asynccontextmanager
async def session(path: str, ident: str, handlers: Mapping[str, Handler]) -> AsyncIterator[None]:
    """Served until the block is left."""
    headers = [f"X-Docker-Expose-Session-Uuid: {ident}"]
    headers += [f"X-Docker-Expose-Session-Grpc-Method: {method}" for method in handlers]
    async with upgraded(path, "/session", *headers) as (reader, writer), served(reader, writer, handlers):
        yield


@asynccontextmanager
async def grpc(path: str) -> AsyncIterator[Channel]:
    async with upgraded(path, "/grpc") as streams, channel(*streams) as made:
        yield made


@asynccontextmanager
async def channel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> AsyncIterator[Channel]:
    """Over a connection that is HTTP/2's."""
    async with asyncio.TaskGroup() as group:
        connection = Http2(reader, writer, client=True)
        running = group.create_task(connection.run())
        try:
            yield Channel(connection)
        finally:
            running.cancel()
