"""Outputs of a build, written to a session's client: an archive as it is, or files of a tree one by one.

Invariant: a client has the whole output when this returns, and says so by the end of its call.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from api.docker.buildkit.messages import Bytes
from api.docker.buildkit.sessions import BuildSession
from model.errors import InvalidInput, Unsupported

METHOD = "/moby.filesync.v1.FileSend/DiffCopy"
NUMBER = "buildkit-attachable-exporter-id"
PIECE = 1 << 20
Receiver = Callable[[BuildSession, int, AsyncIterator[bytes]], Awaitable[None]]


def receiver(kind: str) -> Receiver:
    """What takes an output of that kind."""
    return tree if kind == "local" else archive


async def archive(session: BuildSession, number: int, pieces: AsyncIterator[bytes]) -> None:
    """Raises Unsupported, and what the client says."""
    _takes(session)
    async with session.channel.call(METHOD, [(NUMBER, str(number))]) as call:
        async for data in pieces:
            for at in range(0, len(data), PIECE):
                await call.send(Bytes(data=data[at : at + PIECE]))
        await call.sent()
        if await call.receive(Bytes) is not None:
            raise InvalidInput("the client answers an output with data")


async def tree(session: BuildSession, number: int, pieces: AsyncIterator[bytes]) -> None:
    raise Unsupported("outputs of type local are not written yet", hint="Use type=tar")


def _takes(session: BuildSession) -> None:
    if not session.serves(METHOD):
        raise Unsupported(
            "the client takes no outputs", hint="Name a destination: --output type=tar,dest=FILE"
        )
