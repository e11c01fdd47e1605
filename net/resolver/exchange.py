"""One question to several name servers: the first good answer counts.

The next server is asked when one fails, or says nothing for `STEP` seconds; those asked before may still
answer. Each try has a socket of its own, connected (the kernel checks the sender and chooses the port) and an
id of its own; what does not match id and question is not heard. Invariant: `done` is called once, after at
most `DEADLINE` seconds, and no socket or timer is left then. No tasks: readers and timers of the loop.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple

from net.resolver import codec

STEP, DEADLINE = 1.0, 4.0
"""glibc and musl ask again after 5 s."""
MOST_TRIES = 4


class Reply(NamedTuple):
    data: bytes
    seen: codec.Walk
    server: str


class Exchange:
    """`heard` is told of each server that answered (True) or let its time pass (False)."""

    def __init__(
        self,
        query: bytes,
        question_end: int,
        servers: Sequence[str],
        port: int,
        *,
        done: Callable[[Reply | None], None],
        heard: Callable[[str, bool], None],
    ) -> None:
        self._query, self._end, self._port = query, question_end, port
        self._waiting = (list(servers) * MOST_TRIES)[:MOST_TRIES]
        self._done, self._heard = done, heard
        self._loop = asyncio.get_running_loop()
        self._open: dict[socket.socket, tuple[str, bytes]] = {}
        self._last: Reply | None = None
        self._over = False
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """`done` may be called before this returns."""
        self._deadline = self._loop.call_later(DEADLINE, self._finish)
        self._next()

    def close(self) -> None:
        """Without an answer."""
        self._finish()

    def _next(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            server = self._waiting.pop(0)
            if self._send(server):
                self._timer = self._loop.call_later(STEP, self._late, server)
                return
        if not self._open:
            self._finish()

    def _send(self, server: str) -> bool:
        ident = os.urandom(2)
        try:
            family, address = sockaddr(server, self._port)
            sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except (OSError, ValueError):
            return False
        try:
            sock.connect(address)
            sock.send(ident + self._query[2:])
        except OSError:
            sock.close()
            return False
        self._open[sock] = server, ident
        self._loop.add_reader(sock.fileno(), self._readable, sock)
        return True

    def _late(self, server: str) -> None:
        self._heard(server, False)
        self._next()

    def _readable(self, sock: socket.socket) -> None:
        server, ident = self._open[sock]
        try:
            data = sock.recv(0xFFFF)
        except BlockingIOError:
            return
        except OSError:  # nobody listens there
            self._heard(server, False)
            self._failed(sock)
            return
        if not matches(data, ident, self._query, self._end):
            return
        self._heard(server, True)
        try:
            reply = Reply(data, codec.walk(data), server)
        except codec.Malformed:
            self._failed(sock)
            return
        self._last = reply
        if reply.seen.rcode in (codec.NOERROR, codec.NXDOMAIN):
            self._finish()
        else:
            self._failed(sock)

    def _failed(self, sock: socket.socket) -> None:
        server = self._open[sock][0]
        self._drop(sock)
        # It said no and would again.
        self._waiting = [other for other in self._waiting if other != server]
        self._next()

    def _drop(self, sock: socket.socket) -> None:
        del self._open[sock]
        self._loop.remove_reader(sock.fileno())
        sock.close()

    def _finish(self) -> None:
        if self._over:
            return
        self._over = True
        for timer in (self._timer, self._deadline):
            if timer is not None:
                timer.cancel()
        for sock in list(self._open):
            self._drop(sock)
        self._done(self._last)


def matches(data: bytes, ident: bytes, query: bytes, question_end: int) -> bool:
    """A response to just this question; servers may change upper and lower case."""
    if len(data) < codec.HEADER or data[:2] != ident or not data[2] & 0x80:
        return False
    if data[4:6] != b"\0\1":
        return False
    return data[codec.HEADER : question_end].lower() == query[codec.HEADER : question_end].lower()


SocketAddress = tuple[str, int] | tuple[str, int, int, int]


def sockaddr(server: str, port: int) -> tuple[socket.AddressFamily, SocketAddress]:
    """Of a literal address, of IPv6 with a zone (`fe80::1%eth0`) too. Raises ValueError, OSError."""
    text, _, zone = server.partition("%")
    if ":" not in text:
        socket.inet_pton(socket.AF_INET, text)
        return socket.AF_INET, (text, port)
    socket.inet_pton(socket.AF_INET6, text)
    scope = 0 if not zone else int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)
    return socket.AF_INET6, (text, port, 0, scope)
