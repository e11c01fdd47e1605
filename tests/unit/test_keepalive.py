"""What TCP is told to ask of a silent peer."""

from __future__ import annotations

import asyncio
import socket

import pytest

from aio.keepalive import HOSTS, PEOPLE, Patience, keep_alive


class Transport(asyncio.BaseTransport):
    def __init__(self, connection: socket.socket | None) -> None:
        super().__init__({"socket": connection})


@pytest.mark.parametrize("patience", [HOSTS, PEOPLE])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_tcp_connection_is_asked_with_the_given_patience(family: int, patience: Patience) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        keep_alive(Transport(connection), patience)
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        told = [
            connection.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPCNT, socket.TCP_KEEPINTVL)
        ]
        assert tuple(told) == patience


def test_connection_that_is_no_tcp_is_left_alone() -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        keep_alive(Transport(connection))
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
    keep_alive(Transport(None))
