"""A build's connection to its host, as every way of Docker's clients to one has it.

Invariant: a connection ends with the block that has it; a build that is known by its client's id can be
cancelled as long as it runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from api.channels import Dropped, Pipe
from api.docker.images.stream import words_of
from api.docker.ports import DockerPort
from api.docker.route import Call
from api.hostcall import head, read_reply
from api.routes.copying import copied
from model.build import FROM_HOST, PROTOCOL, FromHost, Unframer
from model.errors import FlotaError, Unavailable
from model.ids import HostId

CHUNK = 1 << 16


@asynccontextmanager
async def connected(port: DockerPort, host: HostId) -> AsyncIterator[Pipe]:
    pipe = await port.open_pipe(host)
    try:
        fields = {"Connection": "Upgrade", "Upgrade": PROTOCOL, "Content-Length": "0"}
        pipe.writer.write(head("POST", "/v1/builds", fields))
        await (await read_reply(pipe)).checked()
        yield pipe
    finally:
        pipe.writer.close()


@contextmanager
def known(call: Call, ident: str, pipe: Pipe) -> Iterator[asyncio.Event]:
    """For those who would cancel it, which is then set."""
    cancelled = asyncio.Event()

    def end() -> None:
        cancelled.set()
        pipe.writer.close()

    if ident:
        call.state.builds[ident] = end
    try:
        yield cancelled
    finally:
        if call.state.builds.get(ident) is end:
            del call.state.builds[ident]


async def messages(pipe: Pipe) -> AsyncIterator[FromHost]:
    """Raises Unavailable."""
    unframer = Unframer(FROM_HOST)
    try:
        while data := await pipe.reader.read(CHUNK):
            for message in unframer.feed(data):
                yield message
    except Dropped as error:
        raise Unavailable(str(error)) from error
    except OSError as error:
        raise Unavailable("the connection to the build broke") from error


async def spread(port: DockerPort, name: str, host: str) -> AsyncIterator[str]:
    """To all hosts, as every image that comes into a fleet. A host that can't have it is told of, and no
    reason to fail."""
    try:
        lines = await copied(port, name, host)
        async for line in lines:
            if line.error:
                yield f"{line.host} has no copy of {name}: {line.error}"
    except FlotaError as error:
        yield f"{name} is on {host} alone: {words_of(error)}"
