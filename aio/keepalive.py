"""TCP's own question whether the other end lives, for connections on which nothing may be said for hours.

Invariant: both ends of such a connection ask alike, so neither believes in one that the other has given up.
"""

from __future__ import annotations

import asyncio
import socket
from typing import NamedTuple

QUIET, PROBES, PAUSE = 10, 3, 3
"""Seconds of silence before TCP asks whether the other end lives, how often, and how many seconds apart."""


class Patience(NamedTuple):
    """See `QUIET`, `PROBES`, `PAUSE`."""

    quiet: int = QUIET
    probes: int = PROBES
    pause: int = PAUSE


HOSTS = Patience()
PEOPLE = Patience(quiet=60, probes=6, pause=15)
"""Of a person's machine, which may lose its network for a minute and come back."""


def keep_alive(transport: asyncio.BaseTransport, patience: Patience = HOSTS) -> None:
    """tcp(7): a peer that vanished without a word must not keep a connection looking alive. Nothing for what
    is no TCP, where a vanished peer is told at once."""
    connection = transport.get_extra_info("socket")
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, patience.quiet),
        (socket.TCP_KEEPCNT, patience.probes),
        (socket.TCP_KEEPINTVL, patience.pause),
    ):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
