"""TCP's own question whether the other end lives, for connections on which nothing may be said for hours.

Invariant: both ends of such a connection ask alike, so neither believes in one that the other has given up.
"""

from __future__ import annotations

import asyncio
import socket

QUIET, PROBES, PAUSE = 10, 3, 3
"""Seconds of silence before TCP asks whether the other end lives, how often, and how many seconds apart."""


def keep_alive(transport: asyncio.BaseTransport) -> None:
    """tcp(7): a peer that vanished without a word must not keep a connection looking alive."""
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, QUIET),
        (socket.TCP_KEEPCNT, PROBES),
        (socket.TCP_KEEPINTVL, PAUSE),
    ):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
