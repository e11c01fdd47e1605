"""An attached container whose host can't do what its client asks for."""

from __future__ import annotations

import asyncio

import pytest

from api.hijack import Connection
from api.sessions import _carry
from model.codec import decode_json
from model.errors import CommandFailed, DeadlineExceeded, ErrorBody
from model.streams import ERROR, EXIT, SIGNAL, STDERR, STDIN, STDOUT, Exit, Unframer, pack
from tests.support.fakecontainers import Program, Session
from tests.support.pipes import Offered


class Deaf(Session):
    """Its process can't be signalled."""

    def __init__(self, program: Program, error: Exception) -> None:
        super().__init__(program)
        self._error = error

    async def signal(self, signal: int) -> None:
        raise self._error


class Broken(Session):
    """Its process can't be written to."""

    async def write(self, data: bytes) -> None:
        raise CommandFailed("no console")


FAILURES = [CommandFailed("runc: no"), DeadlineExceeded("runc hangs"), OSError("no pidfd")]


@pytest.mark.parametrize("error", FAILURES)
async def test_signal_that_is_not_passed_on_is_told_and_ends_nothing(error: Exception) -> None:
    program, client = Program(), Offered()
    carried = asyncio.create_task(_carry(Connection(client.reader, client.writer), Deaf(program, error)))
    client.reader.feed_data(pack(SIGNAL, b"\x0f") + pack(STDIN, b"more"))
    assert await asyncio.wait_for(program.input.get(), 5) == b"more"
    await program.say(STDOUT, b"on it goes")
    await program.end(0)
    await asyncio.wait_for(carried, 5)
    frames = Unframer().feed(client.transport.said)
    client.transport.close()
    told = f"flota: signal 15 was not passed on: {error}\r\n".encode()
    assert frames[:2] == [(STDERR, told), (STDOUT, b"on it goes")]
    assert frames[2][0] == EXIT and decode_json(frames[2][1], Exit).exit_code == 0


async def test_input_that_fails_ends_the_stream_in_words() -> None:
    client = Offered()
    carried = asyncio.create_task(_carry(Connection(client.reader, client.writer), Broken(Program())))
    client.reader.feed_data(pack(STDIN, b"x"))
    await asyncio.wait_for(carried, 5)
    [(kind, payload)] = Unframer().feed(client.transport.said)
    client.transport.close()
    assert kind == ERROR and decode_json(payload, ErrorBody).message == "no console"
