"""A container's streams on this terminal: one socket, one selector, no event loop, so that it starts at once.

Frames both ways are those of `model.streams`. With a TTY the terminal is raw while it lasts and follows its
size; ctrl-p ctrl-q lets go of the container. Invariant: the terminal is as it was before, however this ends.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import sys
import termios
import tty
from collections.abc import Iterator
from typing import Any

from model.codec import decode_json
from model.errors import ErrorBody, Unavailable
from model.streams import ERROR, EXIT, SIGNAL, STDERR, STDIN, STDOUT, Exit, Unframer, pack, pack_resize

DETACH = b"\x10\x11"
CHUNK = 1 << 16
_PROXIED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


class Detached(Exception):
    """The user let go of the container; it runs on."""


class Session:
    """Joins this process's standard streams with an upgraded connection. `sock` may hold early bytes."""

    def __init__(self, sock: Any, *, stdin: bool, terminal: bool, proxy: bool) -> None:
        self._sock: Any = sock
        self._stdin = stdin
        self._terminal = terminal and sys.stdin.isatty()
        self._proxy = proxy
        self._unframer = Unframer()
        self._last_key = b""
        self._selector = selectors.DefaultSelector()

    def run(self) -> Exit:
        """Until the container (or exec) ends. Raises Detached; what the server reports; Unavailable."""
        wake_r, wake_w = socket.socketpair()
        wake_r.setblocking(False)
        wake_w.setblocking(False)
        with contextlib.ExitStack() as stack:
            stack.callback(self._selector.close)
            stack.enter_context(wake_r)
            stack.enter_context(wake_w)
            stack.enter_context(self._signals(wake_w.fileno()))
            if self._terminal:
                stack.enter_context(_raw(sys.stdin.fileno()))
                self._resize()
            self._selector.register(self._sock.fileno(), selectors.EVENT_READ, "server")
            self._selector.register(wake_r, selectors.EVENT_READ, "signal")
            if self._stdin:
                self._watch_stdin()
            return self._loop(wake_r)

    def _loop(self, wake: socket.socket) -> Exit:
        while True:
            events = [] if self._sock.early else self._selector.select()
            names = {key.data for key, _ in events}
            if "signal" in names:
                self._pass_signals(wake.recv(64))
            if "stdin" in names:
                self._read_stdin()
            if self._sock.early or "server" in names:
                ended = self._read_server()
                if ended is not None:
                    return ended

    def _read_server(self) -> Exit | None:
        data = self._sock.recv(CHUNK)
        if not data:
            raise Unavailable(
                "the connection to the container broke", hint="It may run on; see `flota ps -a`"
            )
        for kind, payload in self._unframer.feed(data):
            if kind == STDOUT:
                _write(1, payload)
            elif kind == STDERR:
                _write(2, payload)
            elif kind == EXIT:
                return decode_json(payload, Exit)
            elif kind == ERROR:
                raise decode_json(payload, ErrorBody).to_error()
        return None

    # -- stdin --------------------------------------------------------------------------------------
    def _watch_stdin(self) -> None:
        try:
            self._selector.register(sys.stdin.fileno(), selectors.EVENT_READ, "stdin")
        except PermissionError:  # a plain file is always readable, which epoll refuses to say
            self._send_file()

    def _send_file(self) -> None:
        while data := os.read(sys.stdin.fileno(), CHUNK):
            self._send(pack(STDIN, data))
        self._send(pack(STDIN, b""))

    def _read_stdin(self) -> None:
        data = os.read(sys.stdin.fileno(), CHUNK)
        if not data:
            self._selector.unregister(sys.stdin.fileno())
            self._send(pack(STDIN, b""))
            return
        if self._terminal:
            if DETACH in self._last_key + data:
                raise Detached
            self._last_key = data[-1:]
        self._send(pack(STDIN, data))

    def _send(self, frame: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # its end arrives on the other way
            self._sock.sendall(frame)

    # -- signals and size ---------------------------------------------------------------------------
    @contextlib.contextmanager
    def _signals(self, fd: int) -> Iterator[None]:
        """Signals become bytes on a socket; those for the container are passed on, not obeyed."""
        caught = [*(_PROXIED if self._proxy else ()), *((signal.SIGWINCH,) if self._terminal else ())]
        old_fd = signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
        before = {number: signal.signal(number, lambda *_: None) for number in caught}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(old_fd)

    def _pass_signals(self, numbers: bytes) -> None:
        for number in numbers:
            if number == signal.SIGWINCH:
                self._resize()
            else:
                self._send(pack(SIGNAL, bytes([number])))

    def _resize(self) -> None:
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(sys.stdin.fileno())
            self._send(pack_resize(size.lines, size.columns))


@contextlib.contextmanager
def _raw(fd: int) -> Iterator[None]:
    before = termios.tcgetattr(fd)
    tty.setraw(fd, termios.TCSANOW)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
