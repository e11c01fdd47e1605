"""Ports for servers of tests."""

from __future__ import annotations

import random
import socket

BELOW = 20_000
"""The kernel gives out ports from 32768 on by itself (ip_local_port_range): one of those, free now, may be
some connection's when a server comes to listen on it."""


def free_port() -> int:
    """Free for UDP and TCP on all addresses."""
    while True:
        port = random.randrange(BELOW, BELOW + 10_000)
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind(("", port))
                udp.bind(("", port))
            except OSError:
                continue
            return port
