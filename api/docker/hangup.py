"""Whether a client that has ended its input is still there to read.

After a half-close asyncio looks at a socket no more, and a container that says nothing would keep the stream
of a client that has long gone. The kernel tells a whole close of a unix socket by EPOLLHUP (poll(2)), asked
for or not. Over TLS there is no half-close: an end of input ends the connection.
"""

from __future__ import annotations

import asyncio
import select
import socket


async def hung_up(transport: asyncio.BaseTransport) -> None:
    """Returns once the other end is closed in both directions; never for a connection that can't tell."""
    sock = transport.get_extra_info("socket")
    gone = asyncio.Event()
    if sock is None or sock.family != socket.AF_UNIX or sock.fileno() < 0:
        await gone.wait()
        return
    loop = asyncio.get_running_loop()
    with select.epoll() as poll:
        poll.register(sock.fileno(), 0)
        loop.add_reader(poll.fileno(), gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(poll.fileno())
