"""Registries that answer drop by drop: each drop in time, the whole of it never."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from image.reference import parse
from image.registry.access import Access
from image.registry.endpoints import own
from image.registry.refusals import bounded
from image.registry.transport import Transport
from model.errors import Unavailable


@asynccontextmanager
async def dripping(begin: bytes) -> AsyncIterator[str]:
    """HOST:PORT of a server that answers `begin`, and then a byte now and then."""
    gone = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader
        with contextlib.suppress(ConnectionError):
            writer.write(begin)
            for _ in range(2000):
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()
        gone.set()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        async with asyncio.timeout(10):
            await gone.wait()


async def test_answer_that_never_begins_is_given_up() -> None:
    transport = Transport(deadline=0.3)
    async with asyncio.timeout(20), dripping(b"HTTP/1.1 200 OK\r\nX-Slow: ") as host:
        access = Access(parse(f"{host}/app:1"), own(host, ()))
        try:
            with pytest.raises(Unavailable, match="silent, or too slow"):
                await transport.once(access, "GET", access.url("manifests/1"))
        finally:
            await transport.close()


async def test_document_that_never_ends_is_given_up() -> None:
    begin = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
    async with (
        asyncio.timeout(20),
        dripping(begin) as host,
        aiohttp.ClientSession() as session,
        session.get(f"http://{host}/v2/") as response,
    ):
        with pytest.raises(TimeoutError):
            await bounded(response, 1 << 20, within=0.3)
        response.close()
