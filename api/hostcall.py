"""Asking a host over a pipe: one HTTP/1.1 request per connection (RFC 9112), its reply bounded.

Invariant: the pipe is closed when the reply is over, whichever way it ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar
from urllib.parse import urlencode

from api.channels import Dropped, Pipe
from api.http1 import ProtocolError, body_size, chunk_size
from model.codec import decode_json
from model.errors import ErrorBody, Internal, Unavailable
from model.ids import HostId
from model.registries import HEADER

T = TypeVar("T")
QueryValue = str | bool | int | float | tuple[str, ...] | None
FIRST_BYTE = 60.0
"""Seconds until a reply's head is here; attach waits up to 30 s for the container."""
BODY_WITHIN = 60.0
"""Seconds from there to the end of a value; streams have none."""
MAX_REPLY = 64 << 20
MAX_LINE = 1 << 16


def head(method: str, path: str, headers: Mapping[str, str]) -> bytes:
    """A request's first lines. `path` is percent-encoded already."""
    lines = [f"{method} {path} HTTP/1.1", "Host: flota", *(f"{k}: {v}" for k, v in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def target(path: str, query: Mapping[str, QueryValue] | None = None) -> str:
    """A path with its query; parameters that are None, empty or False are left out."""
    pairs: list[tuple[str, str]] = []
    for name, value in (query or {}).items():
        if isinstance(value, tuple):
            pairs += [(name, item) for item in value]
        elif isinstance(value, bool):
            pairs += [(name, "true")] if value else []
        elif value not in (None, ""):
            pairs.append((name, str(value)))
    return f"{path}?{urlencode(pairs)}" if pairs else path


class Hosts(Protocol):
    """Who has ways to hosts: a controller."""

    async def open_pipe(self, host: HostId) -> Pipe:
        """A fresh connection to the host's own API. Raises Unavailable."""
        ...


class Reply:
    """A host's answer: its status, and its body as it comes."""

    def __init__(self, reader: asyncio.StreamReader, status: int, headers: Mapping[str, str]) -> None:
        self._reader = reader
        self.status = status
        self.headers = headers

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, without its transfer coding. Raises Unavailable when it breaks off, Internal when it is
        no HTTP."""
        try:
            if self.headers.get("transfer-encoding", "").lower() == "chunked":
                async for chunk in self._chunked():
                    yield chunk
                return
            left = body_size(self.headers.get("content-length", "0"))
            while left:
                data = await self._reader.read(min(left, MAX_LINE))
                if not data:
                    raise Unavailable("the host's reply broke off")
                left -= len(data)
                yield data
        except (ProtocolError, asyncio.LimitOverrunError) as error:
            raise Internal(f"a host's reply can't be read: {error}") from error
        except Dropped as error:
            raise Unavailable(str(error)) from error
        except (OSError, asyncio.IncompleteReadError) as error:
            raise Unavailable("the host's reply broke off") from error

    async def _chunked(self) -> AsyncIterator[bytes]:
        while size := chunk_size(await self._reader.readuntil(b"\r\n")):
            while size:
                data = await self._reader.read(min(size, MAX_LINE))
                if not data:
                    raise Unavailable("the host's reply broke off")
                size -= len(data)
                yield data
            await self._reader.readexactly(2)

    async def body(self) -> bytes:
        """All of it. Raises Internal beyond 64 MiB."""
        data = bytearray()
        async for chunk in self.chunks():
            data += chunk
            if len(data) > MAX_REPLY:
                raise Internal(f"a host's reply is larger than {MAX_REPLY} bytes")
        return bytes(data)

    async def lines(self) -> AsyncIterator[bytes]:
        """The body's lines, without their ends."""
        rest = bytearray()
        async for chunk in self.chunks():
            searched = len(rest)
            rest += chunk
            end = rest.rfind(b"\n", searched)
            if end < 0 and len(rest) > MAX_REPLY:
                raise Internal("a host's reply has a line without end")
            whole = bytes(rest[: end + 1])
            del rest[: end + 1]
            for line in whole.split(b"\n"):
                if line:
                    yield line
        if rest:
            yield bytes(rest)

    async def checked(self) -> Reply:
        """Itself, or the error that it carries."""
        if self.status >= 400:
            raise decode_json(await self.body(), ErrorBody, "a host's reply").to_error()
        return self


async def read_reply(pipe: Pipe) -> Reply:
    """Wait for a reply's head. Raises Unavailable when none comes."""
    _, reply = await read_head(pipe)
    return reply


async def read_head(pipe: Pipe) -> tuple[bytes, Reply]:
    """The head as it came, and what it says. Raises Unavailable when none comes."""
    try:
        async with asyncio.timeout(FIRST_BYTE):
            came = await pipe.reader.readuntil(b"\r\n\r\n")
        start, *fields = came.decode("latin-1").rstrip().split("\r\n")
        headers = {k.strip().lower(): v.strip() for k, _, v in (f.partition(":") for f in fields)}
        return came, Reply(pipe.reader, int(start.split(" ")[1]), headers)
    except TimeoutError as error:
        raise Unavailable(f"the host does not answer within {FIRST_BYTE:g} s") from error
    except Dropped as error:
        raise Unavailable(str(error)) from error
    except (OSError, ValueError, IndexError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise Unavailable("the host ended the connection before its answer") from error


@asynccontextmanager
async def ask(
    port: Hosts,
    host: HostId,
    method: str,
    path: str,
    body: bytes = b"",
    *,
    login: str = "",
) -> AsyncIterator[Reply]:
    """One request to a host's API; an error status is raised as the error it carries. `login` is the header
    that says who we are at a registry."""
    pipe = await port.open_pipe(host)
    try:
        headers = {"Connection": "close", "Content-Length": str(len(body))}
        if login:
            headers[HEADER] = login
        if body:
            headers["Content-Type"] = "application/json"
        pipe.writer.write(head(method, path, headers) + body)
        yield await (await read_reply(pipe)).checked()
    finally:
        pipe.writer.close()


async def ask_for(
    port: Hosts,
    host: HostId,
    method: str,
    path: str,
    type_: type[T],
    *,
    within: float = BODY_WITHIN,
    login: str = "",
    send: bytes = b"",
) -> T:
    """One request, with `send` as its JSON body, whose JSON reply is a `type_`. Raises Unavailable when that
    does not come in time."""
    async with ask(port, host, method, path, send, login=login) as reply:
        try:
            async with asyncio.timeout(within):
                body = await reply.body()
        except TimeoutError as error:
            raise Unavailable(f"the host's reply is not here after {within:g} s") from error
        return decode_json(body, type_, "a host's reply")
