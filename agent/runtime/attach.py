"""The client's side of conmon's attach socket and control FIFO.

A packet from conmon is a byte, 2 for stdout or 3 for stderr, and up to 8 KiB of data; what we send is stdin
as it is (conmon, src/conn_sock.c). Paths of unix sockets end at 108 bytes, so the socket is reached through
/proc/self/fd of its directory. Invariant: leaving never ends the process behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal as signals
import socket

from agent.runtime.argv import control_resize
from agent.runtime.base import Exit
from agent.runtime.supervise import Supervised
from aio.processes import open_process
from model.errors import WrongState
from model.streams import STDERR, STDOUT

STDIN_ONCE = "stdin-once"
"""Marks a bundle whose conmon closes stdin when any client leaves, also one that only looked on."""
_PACKET = 8192 + 64
_STDIN_PACKET = 8192
_STREAMS = {2: STDOUT, 3: STDERR}


def control(directory: str, command: bytes) -> None:
    """Write to conmon's control FIFO. Nothing happens when no conmon reads it."""
    try:
        fifo = os.open(os.path.join(directory, "ctl"), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(fifo, command)
    finally:
        os.close(fifo)


class Attachment:
    """An ExecHandle. `process` and `ended` are set for an exec; without them this looks at a container's
    first process."""

    def __init__(
        self,
        directory: str,
        *,
        stdin: bool,
        connection: socket.socket | None = None,
        process: Supervised | None = None,
        ended: asyncio.Future[Exit] | None = None,
    ) -> None:
        self._directory = directory
        self._stdin = stdin
        self._socket = connection
        self.process = process
        self.ended = ended

    @classmethod
    async def open(cls, directory: str, *, stdin: bool) -> Attachment:
        """Raises WrongState when no conmon listens there (any more)."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            place = os.open(directory, os.O_PATH | os.O_CLOEXEC)
            try:
                await asyncio.get_running_loop().sock_connect(connection, f"/proc/self/fd/{place}/attach")
            finally:
                os.close(place)
        except OSError as error:
            connection.close()
            raise WrongState("cannot attach: the container is not running") from error
        except BaseException:
            connection.close()
            raise
        return cls(directory, stdin=stdin, connection=connection)

    async def read(self) -> tuple[int, bytes] | None:
        while self._socket is not None:
            try:
                packet = await asyncio.get_running_loop().sock_recv(self._socket, _PACKET)
            except ConnectionError:
                return None
            if not packet:
                return None
            if packet[0] in _STREAMS and len(packet) > 1:
                return _STREAMS[packet[0]], packet[1:]
        return None

    async def write(self, data: bytes) -> None:
        """To stdin, waiting while the process does not read. Nothing happens without `stdin`, or after its
        end."""
        if not self._stdin or self._socket is None:
            return
        loop = asyncio.get_running_loop()
        view = memoryview(data)
        with contextlib.suppress(ConnectionError):
            for at in range(0, len(view), _STDIN_PACKET):
                await loop.sock_sendall(self._socket, view[at : at + _STDIN_PACKET])

    async def close_stdin(self) -> None:
        if self._stdin and self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)

    async def resize(self, rows: int, cols: int) -> None:
        control(self._directory, control_resize(rows, cols))

    async def wait(self) -> Exit:
        """Raises WrongState on the attach side of a container."""
        if self.ended is None:
            raise WrongState("an attach has no exit of its own")
        return await asyncio.shield(self.ended)

    async def signal(self, signal: int) -> None:
        if self.process is None:
            raise WrongState("signal the container, not its attachment")
        pidfd = open_process(self.process.pid, self.process.started)
        if pidfd is not None:
            try:
                with contextlib.suppress(ProcessLookupError):
                    signals.pidfd_send_signal(pidfd, signal)
            finally:
                os.close(pidfd)

    async def kill(self) -> None:
        """The process leads a session of its own, as runc makes it."""
        if self.process is None:
            raise WrongState("kill the container, not its attachment")
        pidfd = open_process(self.process.pid, self.process.started)
        if pidfd is not None:
            try:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signals.SIGKILL)
            finally:
                os.close(pidfd)

    async def close(self) -> None:
        if self._socket is None:
            return
        looked_on = self.process is None and not self._stdin
        if looked_on and os.path.exists(os.path.join(self._directory, STDIN_ONCE)):
            _linger(self._socket)
        else:
            self._socket.close()
        self._socket = None


def _linger(connection: socket.socket) -> None:
    """Stay connected, reading and forgetting, until conmon hangs up: whoever types keeps the container's
    stdin."""
    loop = asyncio.get_running_loop()

    def forget() -> None:
        try:
            packet = connection.recv(_PACKET)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet:
            loop.remove_reader(connection)
            connection.close()

    loop.add_reader(connection, forget)
