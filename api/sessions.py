"""Attach and exec on a host: one connection of frames joined to a container's streams.

Invariant: the session is closed when either side ends, and EXIT is the last frame of an end that was seen.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from api.hijack import Connection, Taken, take_over
from api.ports import AttachSession
from api.streaming import error_body
from model.codec import encode_json
from model.errors import FlotaError, InvalidInput
from model.streams import (
    ERROR,
    EXIT,
    PROTOCOL,
    RESIZE,
    SIGNAL,
    STDERR,
    STDIN,
    Unframer,
    pack,
    unpack_resize,
)

CHUNK = 1 << 16


async def serve(request: web.Request, session: AttachSession) -> web.StreamResponse:
    """Upgrade the request's connection and carry the session until its end or the client's."""
    try:
        connection = take_over(request, PROTOCOL)
        try:
            await _carry(connection, session)
        finally:
            connection.writer.close()
    except OSError:
        return Taken()
    finally:
        await session.close()
    return Taken()


async def _carry(connection: Connection, session: AttachSession) -> None:
    async with asyncio.TaskGroup() as group:
        output = group.create_task(_output(session, connection.writer))
        client = group.create_task(_input(connection, session))
        await asyncio.wait((output, client), return_when=asyncio.FIRST_COMPLETED)
        output.cancel()
        client.cancel()


async def _output(session: AttachSession, writer: asyncio.StreamWriter) -> None:
    try:
        while (item := await session.read()) is not None:
            writer.write(pack(*item))
            await writer.drain()
        writer.write(pack(EXIT, encode_json(await session.finish())))
        await writer.drain()
    except OSError:
        return
    except Exception as error:
        writer.write(pack(ERROR, encode_json(error_body(error))))


async def _input(connection: Connection, session: AttachSession) -> None:
    """Until the client ends the connection; the end of its input is a frame."""
    unframer = Unframer()
    try:
        while data := await connection.reader.read(CHUNK):
            for kind, payload in unframer.feed(data):
                await _frame(kind, payload, session, connection.writer)
    except OSError:
        return
    except Exception as error:
        connection.writer.write(pack(ERROR, encode_json(error_body(error))))


async def _frame(kind: int, payload: bytes, session: AttachSession, writer: asyncio.StreamWriter) -> None:
    if kind == STDIN:
        await (session.write(payload) if payload else session.close_stdin())
    elif kind == RESIZE:
        await session.resize(*unpack_resize(payload))
    elif kind == SIGNAL:
        if len(payload) != 1 or not 1 <= payload[0] <= 64:
            raise InvalidInput("malformed signal frame")
        await _signal(payload[0], session, writer)
    else:
        raise InvalidInput(f"a client sends no frame of type {kind}")


async def _signal(number: int, session: AttachSession, writer: asyncio.StreamWriter) -> None:
    """One that can't be passed on is told among the container's errors, and ends nothing: ERROR would."""
    try:
        await session.signal(number)
    except (FlotaError, OSError) as error:
        writer.write(pack(STDERR, f"flota: signal {number} was not passed on: {error}\r\n".encode()))
