"""Attached streams: a client's hijacked connection joined to a host's stream of frames.

Docker's client writes plain bytes and half-closes; it reads bytes of a terminal, or frames. The host's stream
is `model.streams`. Invariant: the host's stream ends when the client's connection does and the other way
round; neither side is read faster than the other takes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from api.channels import Dropped, Pipe
from api.docker.containers.logs import SYSTEM
from api.docker.detach import DetachKeys
from api.docker.early import Watched
from api.docker.hangup import hung_up
from api.docker.ports import DockerPort
from api.hijack import Connection, asks_for, take_over
from api.hostcall import head, read_reply
from api.streaming import error_body
from model.codec import decode_json
from model.errors import ErrorBody, Unavailable
from model.ids import HostId
from model.streams import ERROR, EXIT, PROTOCOL, STDERR, STDIN, STDOUT, Exit, Unframer, pack

CHUNK = 1 << 16


@dataclass(frozen=True)
class Wish:
    """What a client wants of the streams."""

    terminal: bool
    stdin: bool
    stdout: bool = True
    stderr: bool = True
    keys: bytes = b""
    """That detach it; none without a terminal."""
    ends_stdin: bool = True
    """The end of the client's input is that of the process; otherwise others may go on."""

    @property
    def kinds(self) -> frozenset[int]:
        return frozenset(k for k, said in ((STDOUT, self.stdout), (STDERR, self.stderr)) if said)


@asynccontextmanager
async def host_stream(port: DockerPort, host: HostId, path: str, body: bytes = b"") -> AsyncIterator[Pipe]:
    """An upgraded connection to a host. Raises what the host says, Unavailable."""
    pipe = await port.open_pipe(host)
    try:
        fields = {"Connection": "Upgrade", "Upgrade": PROTOCOL, "Content-Length": str(len(body))}
        if body:
            fields["Content-Type"] = "application/json"
        pipe.writer.write(head("POST", path, fields) + body)
        await (await read_reply(pipe)).checked()
        yield pipe
    finally:
        pipe.writer.close()


def hijack(request: web.Request, kind: str) -> Connection:
    """The client's connection, told so in the way that it asked: 101, or without Upgrade a 200 and then raw
    bytes. Raises ConnectionResetError."""
    upgrading = asks_for(request, "tcp")
    before = request.transport.get_protocol() if request.transport is not None else None
    connection = take_over(request)
    if isinstance(before, Watched):
        before.hand_over(connection)
    start = "101 UPGRADED" if upgrading else "200 OK"
    more = "Connection: Upgrade\r\nUpgrade: tcp\r\n" if upgrading else ""
    connection.writer.write(f"HTTP/1.1 {start}\r\nContent-Type: {kind}\r\n{more}\r\n".encode("ascii"))
    return connection


async def carry(client: Connection, pipe: Pipe, wish: Wish) -> Exit | None:
    """Both ways until the process has ended, the client detaches or is gone; how it ended, where that was
    told."""
    async with asyncio.TaskGroup() as group:
        down = group.create_task(_downwards(pipe.reader, client.writer, wish))
        up = group.create_task(_upwards(client, pipe.writer, wish))
        detached = False
        while not down.done() and not detached:
            await asyncio.wait((down, *(() if up.done() else (up,))), return_when=asyncio.FIRST_COMPLETED)
            detached = up.done() and up.result()
        up.cancel()
        if detached:
            down.cancel()
    return None if down.cancelled() else down.result()


async def _downwards(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wish: Wish) -> Exit | None:
    """What the container says, until it has no more to say."""
    unframer, kinds = Unframer(), wish.kinds
    try:
        while data := await reader.read(CHUNK):
            for kind, payload in unframer.feed(data):
                if kind == EXIT:
                    return decode_json(payload, Exit, "a host's exit")
                if kind == ERROR:
                    _say(writer, decode_json(payload, ErrorBody, "a host's error").message, wish)
                    return None
                if kind in kinds:
                    writer.write(payload if wish.terminal else pack(kind, payload))
            await writer.drain()
    except Dropped as error:
        _say(writer, error_body(Unavailable(str(error))).message, wish)
    except OSError:
        return None
    except Exception as error:
        _say(writer, error_body(error).message, wish)
    return None


def _say(writer: asyncio.StreamWriter, message: str, wish: Wish) -> None:
    """Words of a failure, which the client shows as one."""
    words = f"{message}\r\n".encode()
    writer.write(words if wish.terminal else pack(SYSTEM, words))


async def _upwards(client: Connection, writer: asyncio.StreamWriter, wish: Wish) -> bool:
    """The client's input, and then its presence: true when it detached by its keys, or is gone."""
    keys = DetachKeys(wish.keys)
    try:
        while data := await client.reader.read(CHUNK):
            if not wish.stdin:
                continue
            passed, detached = keys.feed(data)
            if passed:
                writer.write(pack(STDIN, passed))
                await writer.drain()
            if detached:
                return True
        if wish.stdin and wish.ends_stdin:
            writer.write(pack(STDIN, b""))
            await writer.drain()
    except OSError:
        return False
    await hung_up(client.writer.transport)
    return True
