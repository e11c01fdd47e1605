"""Connecting to a container from within its own network, without a process there.

A socket belongs to the network namespace in which it was made, whoever uses it later: it is made on a thread
that visits the namespace, and connected from the event loop.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable

from aio.supervisor import in_thread
from net.kernel.netns import inside

Dial = Callable[[int, str, int], Awaitable[socket.socket]]
"""(a process of the container, address, port) → a connected TCP socket. Raises OSError."""


async def dial(pid: int, address: str, port: int) -> socket.socket:
    """A `Dial`. Cancel it to give up."""
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET

    def make() -> socket.socket:
        made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        made.setblocking(False)
        return made

    connection: socket.socket = await in_thread(inside, f"/proc/{pid}/ns/net", make)
    try:
        await asyncio.get_running_loop().sock_connect(connection, (address, port))
    except BaseException:
        connection.close()
        raise
    return connection
