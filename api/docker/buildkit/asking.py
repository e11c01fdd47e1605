"""What a host asks during a build, answered out of the client's session.

Each question is a task of its own, so that a slow one holds up no other. Invariant: nothing is asked of the
client that the host did not ask for; what goes to it is at its pace, and no more than the host's window of
it is kept here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from typing import Any

from api.channels import Pipe
from api.docker.buildkit.filesend import receiver
from api.docker.buildkit.front import SECRETS, SSH
from api.docker.buildkit.messages import Bytes, Credentials, Host, Ident, Secret
from api.docker.buildkit.sessions import BuildSession
from model.build import (
    PIECE,
    AskSecret,
    Exported,
    FromHost,
    Object,
    OpenSsh,
    Output,
    Scan,
    Scanned,
    SendTar,
    SshData,
    Taken,
    Want,
    pack,
)
from model.build import Secret as SecretAnswer
from model.errors import ErrorBody, FlotaError, Internal, NotFound, Unsupported
from model.registries import DEFAULT_HOST, Login

ANSWER = 30.0
"""Seconds for a login or a secret: someone may have to unlock it."""
CREDENTIALS = "/moby.filesync.v1.Auth/Credentials"
SSH_ID = "buildkit.ssh.id"
AGENT_AHEAD = 64
"""Pieces for the client's agent that wait."""
Start = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]
Source = Callable[[], AsyncGenerator[bytes, None]]
"""A context as a tar; called once."""


async def logins(session: BuildSession, registries: Sequence[str]) -> Mapping[str, Login]:
    """The client's, by registry, as far as it has any."""
    found: dict[str, Login] = {}
    if not session.serves(CREDENTIALS):
        return found
    for registry in registries:
        host = "registry-1.docker.io" if registry == DEFAULT_HOST else registry
        with contextlib.suppress(NotFound, Unsupported):
            said = await session.channel.ask(CREDENTIALS, Host(host=host), Credentials, within=ANSWER)
            if said.secret:
                named = {"user": said.user, "password": said.secret}
                found[registry] = Login(**named) if said.user else Login(identity=said.secret)
    return found


class Asked:
    """The questions of one build; `start` makes a task of an answer. `outputs` are the request's."""

    def __init__(
        self,
        pipe: Pipe,
        session: BuildSession,
        sources: Mapping[str, Source],
        outputs: Sequence[Output],
        start: Start,
    ) -> None:
        self._pipe = pipe
        self._session = session
        self._sources = sources
        self._outputs = outputs
        self._start = start
        self._agents: dict[int, asyncio.Queue[bytes]] = {}
        self._written: dict[int, asyncio.Queue[Exported]] = {}
        self._writing: list[asyncio.Task[None]] = []

    def take(self, message: FromHost) -> bool:
        """Whether it was a question, or of one. Raises Internal, NotFound, InvalidInput."""
        match message:
            case SendTar():
                self._start(self._tar(message))
            case AskSecret():
                self._start(self._secret(message))
            case OpenSsh():
                self._agents[message.channel] = asyncio.Queue(AGENT_AHEAD)
                self._start(self._agent(message))
            case SshData():
                self._for_agent(message)
            case Exported():
                self._exported(message)
            case Scan():
                error = NotFound(f"there is no build context {message.context[:80]!r}")
                self._say(Scanned(ask=message.ask, error=ErrorBody.of(error)))
            case Want():
                raise Internal("the host asks for what this build does not have")
            case _:
                return False
        return True

    async def ended(self) -> None:
        """Once the client has all that was written to it."""
        if self._writing:
            await asyncio.wait(self._writing)

    def _say(self, message: Any) -> None:
        self._pipe.writer.write(pack(message))

    # -- contexts -----------------------------------------------------------------------------------
    async def _tar(self, asked: SendTar) -> None:
        source = self._sources.get(asked.context)
        try:
            if source is None:
                raise NotFound(f"there is no build context {asked.context[:80]!r}")
            async with contextlib.aclosing(source()) as pieces:
                async for data in pieces:
                    for at in range(0, len(data), PIECE):
                        self._say(Object(ask=asked.ask, digest="", data=data[at : at + PIECE]))
                        await self._pipe.writer.drain()
            self._say(Object(ask=asked.ask, digest="", last=True))
        except FlotaError as error:
            self._say(Object(ask=asked.ask, digest="", gone=str(error)[:400]))
            raise

    # -- secrets ------------------------------------------------------------------------------------
    async def _secret(self, asked: AskSecret) -> None:
        value: bytes | None = None
        with contextlib.suppress(NotFound, Unsupported):
            said = await self._session.channel.ask(SECRETS, Ident(id=asked.ident), Secret, within=ANSWER)
            value = said.data
        self._say(SecretAnswer(ask=asked.ask, value=value))

    # -- the client's SSH agent ---------------------------------------------------------------------
    def _for_agent(self, message: SshData) -> None:
        pieces = self._agents.get(message.channel)
        if pieces is None:
            return
        try:
            pieces.put_nowait(message.data)
        except asyncio.QueueFull:
            raise Unsupported("a step says more to the SSH agent than it reads") from None

    async def _agent(self, opened: OpenSsh) -> None:
        pieces = self._agents[opened.channel]
        try:
            async with (
                self._session.channel.call(SSH, [(SSH_ID, opened.ident)]) as call,
                asyncio.TaskGroup() as group,
            ):
                sending = group.create_task(_sent(call, pieces))
                while (said := await call.receive(Bytes)) is not None:
                    self._say(SshData(channel=opened.channel, data=said.data))
                    await self._pipe.writer.drain()
                sending.cancel()
        except* FlotaError:
            pass  # the step sees its agent's connection end
        finally:
            del self._agents[opened.channel]
            self._say(SshData(channel=opened.channel))

    # -- outputs ------------------------------------------------------------------------------------
    def _exported(self, message: Exported) -> None:
        if message.output not in self._written:
            if not 0 <= message.output < len(self._outputs):
                raise Internal(f"the host writes output {message.output}, which this build does not have")
            self._written[message.output] = asyncio.Queue()  # bounded by the host's window
            self._writing.append(self._start(self._write(message.output)))
        self._written[message.output].put_nowait(message)

    async def _write(self, number: int) -> None:
        async with contextlib.aclosing(self._pieces(number)) as pieces:
            await receiver(self._outputs[number].kind)(self._session, number, pieces)

    async def _pieces(self, number: int) -> AsyncGenerator[bytes, None]:
        """What the host writes; each is told as taken when the next is asked for."""
        while True:
            message = await self._written[number].get()
            if message.data:
                yield message.data
                self._say(Taken(size=len(message.data)))
            if message.last:
                return


async def _sent(call: Any, pieces: asyncio.Queue[bytes]) -> None:
    while data := await pieces.get():
        await call.send(Bytes(data=data))
    await call.sent()
