"""One client's build over its connection: `image.build.base.Session`, and the life of the whole.

Invariant: a build ends with its client, and its client is told how it ended: Done or Failed is the last frame
of every connection whose reader is still there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol

from agent.build.link import Link
from agent.build.streams import Stream
from image.build.base import Session
from model.build import (
    ANY,
    PIECE,
    WINDOW,
    BuildRequest,
    Done,
    Exported,
    Failed,
    FromHost,
    OpenSsh,
    ShellBegan,
    SshData,
    StepSaid,
    Typed,
)
from model.errors import ErrorBody, FlotaError, Internal, InvalidInput, NotFound

log = logging.getLogger("flota.build")
START = 30.0
"""Seconds in which a client says what it wants."""
LINGER = 30.0
"""Seconds in which it reads how its build ended."""
PARTING = 5.0
"""Seconds in which it ends the connection, which is its part: what is on its way to it when we end it may
be lost between here and there (TLS)."""
MAX_SECRET = 500 << 10
"""Bytes, Docker's limit."""
MAX_AGENTS = 64
"""Connections to the client's agent at once."""
SAID = 1 << 15
"""Bytes of output in one frame."""

Build = Callable[[BuildRequest, Session], Awaitable[Done]]


class Bring(Protocol):
    """`image.context.receive`: the objects of a local context come into the store of this host."""

    async def __call__(self, link: Link, context: str, paths: Sequence[str]) -> str: ...


class ClientSession:
    """`sockets`: a folder for those of agents, which a start of the host's agent empties."""

    def __init__(self, link: Link, request: BuildRequest, bring: Bring, sockets: str | None = None) -> None:
        self._link = link
        self._request = request
        self._bring = bring
        self._sockets = sockets

    def tell(self, said: FromHost) -> None:
        if not isinstance(said, StepSaid) or len(said.data) <= SAID:
            self._link.tell(said)
            return
        for at in range(0, len(said.data), SAID):
            part = said.data[at : at + SAID]
            self._link.tell(StepSaid(step=said.step, data=part, stderr=said.stderr))

    async def scan(self, context: str, paths: Sequence[str]) -> str:
        return await self._bring(self._link, context, paths)

    async def secret(self, ident: str) -> bytes | None:
        if not has(self._request.secrets, ident):
            return None
        value = await self._link.secret(ident)
        if value is not None and len(value) > MAX_SECRET:
            raise InvalidInput(f"secret {ident} has {len(value)} bytes; {MAX_SECRET} are the most")
        return value

    @contextlib.asynccontextmanager
    async def ssh(self, ident: str) -> AsyncIterator[str]:
        if not has(self._request.ssh, ident):
            raise NotFound(
                f"the build was not given the SSH agent {ident!r}",
                hint=f"Give `--ssh {ident}` to flota build",
            )
        with tempfile.TemporaryDirectory(prefix="ssh-", dir=self._sockets) as folder:
            path = os.path.join(folder, "agent")
            async with _Agents(self._link, ident).serving(path):
                yield path

    async def send(self, output: int, data: AsyncIterator[bytes]) -> None:
        async for chunk in data:
            for at in range(0, len(chunk), PIECE):
                piece = chunk[at : at + PIECE]
                await self._link.credit(len(piece), WINDOW)
                await self._link.send(Exported(output=output, data=piece))
        await self._link.send(Exported(output=output, last=True))

    async def shell(self, number: int) -> AsyncIterator[Typed]:
        self._link.open_shell()
        self._link.tell(ShellBegan(step=number))
        return self._link.typed


def has(idents: Sequence[str], ident: str) -> bool:
    """Whether the client can be asked for that one."""
    return ident in idents or ANY in idents


class _Agents:
    """Connections to a socket here, each carried to the client's SSH agent."""

    def __init__(self, link: Link, ident: str) -> None:
        self._link = link
        self._ident = ident
        self._open: dict[int, asyncio.StreamWriter] = {}
        self._idle = asyncio.Event()

    @contextlib.asynccontextmanager
    async def serving(self, path: str) -> AsyncIterator[None]:
        server = await asyncio.start_unix_server(self._carry, path)
        os.chmod(path, 0o666)  # noqa: S103 - its folder is ours alone; a mount lets others in
        try:
            yield
        finally:
            server.close()
            for number, writer in list(self._open.items()):
                writer.transport.abort()
                await self._link.forget(number)
            while self._open:
                self._idle.clear()
                await self._idle.wait()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= MAX_AGENTS:
            writer.close()
            return
        number, answers = self._link.channel()
        self._open[number] = writer
        try:
            self._link.tell(OpenSsh(channel=number, ident=self._ident))
            async with asyncio.TaskGroup() as group:
                asking = group.create_task(self._asking(number, reader))
                await self._answering(answers, writer)
                asking.cancel()
        finally:
            await self._link.forget(number)
            writer.close()
            del self._open[number]
            self._idle.set()

    async def _asking(self, number: int, reader: asyncio.StreamReader) -> None:
        try:
            while data := await reader.read(SAID):
                await self._link.send(SshData(channel=number, data=data))
        except OSError:
            return
        finally:
            self._link.tell(SshData(channel=number))

    async def _answering(self, answers: Stream[bytes], writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            async for data in answers:
                writer.write(data)
                await writer.drain()


async def serve(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    build: Build,
    bring: Bring,
    *,
    within: float = START,
    sockets: str | None = None,
) -> None:
    """What one client wants, until it is done or the client has gone. It has `within` seconds to say it.
    `sockets` as of `ClientSession`."""
    link = Link(reader, writer)
    async with asyncio.TaskGroup() as group:
        writing = group.create_task(link.write())
        await _serve(link, build, bring, group, within, sockets)
        link.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                await asyncio.wait((writing,))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PARTING):
                await link.left()
        writing.cancel()


async def _serve(
    link: Link, build: Build, bring: Bring, group: asyncio.TaskGroup, within: float, sockets: str | None
) -> None:
    try:
        async with asyncio.timeout(within):
            start = await link.start()
    except TimeoutError:
        link.tell(Failed(error=ErrorBody.of(InvalidInput("a build is to begin with what is asked for"))))
        return
    except FlotaError as error:
        link.tell(failed(error))
        return
    if start is None:
        return
    reading = group.create_task(_reading(link))
    session = ClientSession(link, start.request, bring, sockets)
    building = group.create_task(_building(link, build, start.request, session))
    await asyncio.wait((reading, building), return_when=asyncio.FIRST_COMPLETED)
    reading.cancel()
    building.cancel()
    await asyncio.wait((reading, building))


async def _reading(link: Link) -> None:
    try:
        await link.read()
    except FlotaError as error:
        link.tell(failed(error))


async def _building(link: Link, build: Build, request: BuildRequest, session: Session) -> None:
    try:
        link.tell(await build(request, session))
    except Exception as error:
        link.tell(failed(error))


def failed(error: Exception) -> Failed:
    """The last word of a build that came to nothing."""
    if not isinstance(error, FlotaError):
        log.error("a build failed", exc_info=error)
        error = Internal("internal error", hint="The log of the host's agent has the details")
    spot = getattr(error, "spot", None)
    return Failed(
        error=ErrorBody.of(error),
        line=getattr(spot, "line", 0) or getattr(error, "line", 0),
        column=getattr(spot, "column", 0),
        exit_code=getattr(error, "exit_code", 0),
    )
