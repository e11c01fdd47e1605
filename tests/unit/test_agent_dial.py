"""Spares that the agent offers: what becomes of them when its session ends."""

from __future__ import annotations

import asyncio
import ssl

from agent.dial import Dialer, _Pipe
from tests.support.pipes import Transport

UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


class Server(asyncio.Protocol):
    """Serves a call without an end."""


def dialled(said: bytes) -> tuple[_Pipe, Transport]:
    """A connection over which the controller said this."""
    pipe = _Pipe(Server)
    transport = Transport(pipe)
    pipe.data_received(said)
    return pipe, transport


async def test_spares_are_dialled_anew_when_the_session_ends_and_calls_go_on() -> None:
    spare, idle = dialled(UPGRADED)
    call, used = dialled(UPGRADED + b"GET / HTTP/1.1\r\n")
    dialer = Dialer(list, ssl.create_default_context(), Server)
    dialer._pipes = [spare, call]
    dialer.renew()
    assert await asyncio.wait_for(spare.taken, 1) is False and idle.closed
    assert call.taken.result() and not used.closed
