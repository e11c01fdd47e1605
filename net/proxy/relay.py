"""One connection through the proxy: a backend found, the header sent, then bytes both ways by splice(2).

Ends are passed on as they come: a FIN closes that direction only, once everything before it is through; a
reset or a fault of either side resets the other. Invariant: a slow reader stops its writer, and holds no more
than a pipe of it here.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable, Sequence

from net.proxy.pipes import SIZE, Pipe, Pipes
from net.proxy.state import Backend

CONNECT_DEADLINE = 5.0
"""Seconds for a backend to take the connection."""
_ROUNDS = 8
"""Pipefuls in a row before other connections have their turn."""
_NOW = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER on, zero seconds: close(2) sends a reset (socket(7))."""
KEEPALIVE = 300
"""Seconds of silence until a peer is asked whether it lives; one that is gone gives its place free."""
_SMALL = 16 << 10
"""When less came there is hardly more yet."""


class _Flow:
    """One direction."""

    __slots__ = (
        "_held",
        "_loop",
        "_out_fd",
        "_over",
        "_pipe",
        "_pipes",
        "_reading",
        "_source_fd",
        "_target",
        "_writing",
        "ended",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        source: socket.socket,
        target: socket.socket,
        pipes: Pipes,
        over: Callable[[bool], None],
    ) -> None:
        self._loop = loop
        self._source_fd, self._target, self._out_fd = source.fileno(), target, target.fileno()
        self._pipes, self._over = pipes, over
        self._pipe: Pipe | None = None
        self._held = 0
        self._reading = self._writing = self.ended = False

    def start(self) -> None:
        self._reading = True
        self._loop.add_reader(self._source_fd, self._fill)

    def stop(self) -> None:
        """Before the sockets are closed."""
        self._rest()
        if self._writing:
            self._loop.remove_writer(self._out_fd)
        if self._pipe is not None:
            self._pipes.drop(self._pipe)
            self._pipe = None

    def _rest(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._source_fd)

    def _fill(self) -> None:
        """What the source has goes to the target, as far as it takes it."""
        try:
            pipe = self._pipe = self._pipes.take()
            for _ in range(_ROUNDS):
                self._held = came = os.splice(self._source_fd, pipe[1], SIZE, flags=_NOW)
                if not came:
                    self._release()
                    self._end()
                    return
                if not self._drain():
                    self._rest()
                    self._writing = True
                    self._loop.add_writer(self._out_fd, self._resume)
                    return
                if came < _SMALL:
                    break
            self._release()
        except BlockingIOError:
            self._release()
        except OSError:
            self._over(True)

    def _drain(self) -> bool:
        """Whether all that is held went through. Raises OSError."""
        assert self._pipe is not None
        try:
            while self._held:
                self._held -= os.splice(self._pipe[0], self._out_fd, self._held, flags=_NOW)
        except BlockingIOError:
            return False
        return True

    def _resume(self) -> None:
        try:
            if not self._drain():
                return
        except OSError:
            self._over(True)
            return
        self._writing = False
        self._loop.remove_writer(self._out_fd)
        self._release()
        self.start()

    def _release(self) -> None:
        """The pipe is empty."""
        assert self._pipe is not None
        self._pipes.give(self._pipe)
        self._pipe = None

    def _end(self) -> None:
        self._rest()
        self.ended = True
        try:
            self._target.shutdown(socket.SHUT_WR)
        except OSError:
            self._over(True)
            return
        self._over(False)


class Relay:
    """`client` was accepted; `backends` are tried in this order. `gone` is called once, at its end."""

    __slots__ = ("_backends", "_client", "_flows", "_gone", "_header", "_loop", "_pipes", "_server", "_timer")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        client: socket.socket,
        header: bytes,
        backends: Sequence[Backend],
        pipes: Pipes,
        gone: Callable[[Relay], None],
    ) -> None:
        self._loop = loop
        self._client, self._header, self._pipes, self._gone = client, header, pipes, gone
        self._backends = list(reversed(backends))
        self._server: socket.socket | None = None
        self._flows: tuple[_Flow, ...] = ()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """The next backend, until one takes the connection; the client is reset when none does."""
        while self._backends:
            backend = self._backends.pop()
            family = socket.AF_INET6 if ":" in backend.address else socket.AF_INET
            try:
                server = socket.socket(
                    family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
                )
            except OSError:
                continue
            self._server = server
            tune(server)
            if server.connect_ex((backend.address, backend.port)) in (0, errno.EINPROGRESS):
                self._greet()
                return
            self._drop_server()
        self.abort()

    def abort(self) -> None:
        """Both sides are reset."""
        self._close(reset=True)

    # -- the way to a backend -----------------------------------------------------------------------
    def _greet(self) -> None:
        """The header goes first and whole: it fits any new socket's buffer. On one host the connection
        mostly stands as soon as it is asked for."""
        assert self._server is not None
        try:
            whole = self._server.send(self._header) == len(self._header)
        except BlockingIOError:
            if self._timer is None:
                self._loop.add_writer(self._server.fileno(), self._greet)
                self._timer = self._loop.call_later(CONNECT_DEADLINE, self._refused)
            return
        except OSError:
            whole = False
        if not whole:
            self._refused()
            return
        self._stop_waiting()
        there = _Flow(self._loop, self._client, self._server, self._pipes, self._over)
        back = _Flow(self._loop, self._server, self._client, self._pipes, self._over)
        self._flows = there, back
        for flow in self._flows:
            flow.start()

    def _refused(self) -> None:
        self._stop_waiting()
        self._drop_server()
        self.start()

    def _drop_server(self) -> None:
        assert self._server is not None
        self._server.close()
        self._server = None

    def _stop_waiting(self) -> None:
        """For the backend's answer, if we do."""
        if self._timer is not None and self._server is not None:
            self._loop.remove_writer(self._server.fileno())
            self._timer.cancel()
            self._timer = None

    # -- the end ------------------------------------------------------------------------------------
    def _over(self, failed: bool) -> None:
        if failed:
            self._close(reset=True)
        elif all(flow.ended for flow in self._flows):
            self._close(reset=False)

    def _close(self, *, reset: bool) -> None:
        if self._client.fileno() < 0:
            return
        self._stop_waiting()
        for flow in self._flows:
            flow.stop()
        for sock in (self._client, self._server):
            if sock is not None:
                if reset:
                    with contextlib.suppress(OSError):
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                sock.close()
        self._flows = ()
        self._gone(self)


def refuse(client: socket.socket) -> None:
    """Reset a connection that was accepted."""
    with contextlib.suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    client.close()


def tune(sock: socket.socket) -> None:
    """What a listening socket has of this, those that it accepts have too (tcp(7))."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE)
