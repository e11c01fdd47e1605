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
INPUT = 0
_PROXIED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


class Detached(Exception):
    """The user let go of the container; it runs on."""


class Session:
    """Joins this process's standard streams with an upgraded connection. `sock` may hold early bytes.

    Neither direction waits for the other: what can't be sent yet is kept, and no more input is read until it
    is.
    """

    def __init__(self, sock: Any, *, stdin: bool, terminal: bool, proxy: bool) -> None:
        self._sock: Any = sock
        self._stdin = stdin
        self._terminal = terminal and os.isatty(INPUT)
        self._proxy = proxy
        self._unframer = Unframer()
        self._last_key = b""
        self._selector = selectors.DefaultSelector()
        self._unsent = bytearray()
        self._file = False
        """Standard input is a plain file: always readable, which epoll refuses to say."""

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
                stack.enter_context(_raw(INPUT))
                self._resize()
            self._sock.setblocking(False)
            self._selector.register(self._sock.fileno(), selectors.EVENT_READ, "server")
            self._selector.register(wake_r, selectors.EVENT_READ, "signal")
            return self._loop(wake_r)

    def _loop(self, wake: socket.socket) -> Exit:
        while True:
            self._flush()
            ended, more = self._read_server()
            if ended is not None:
                return ended
            self._watch()
            ready = more or (self._file and not self._unsent)
            names = {key.data for key, _ in self._selector.select(0 if ready else None)}
            if "signal" in names:
                self._pass_signals(wake.recv(64))
            if "stdin" in names or (self._file and not self._unsent):
                self._read_stdin()

    def _watch(self) -> None:
        """Ask only for what can be dealt with: room to send while there is something, input while there is
        not."""
        writing = selectors.EVENT_WRITE if self._unsent else 0
        self._selector.modify(self._sock.fileno(), selectors.EVENT_READ | writing, "server")
        wanted = self._stdin and not self._file and not self._unsent
        watched = INPUT in self._selector.get_map()
        if watched and not wanted:
            self._selector.unregister(INPUT)
        elif wanted and not watched:
            try:
                self._selector.register(INPUT, selectors.EVENT_READ, "stdin")
            except PermissionError:
                self._file = True

    def _read_server(self) -> tuple[Exit | None, bool]:
        """(how it ended, whether more may be here already): TLS may hold more than the selector sees."""
        for _ in range(16):
            try:
                data = self._sock.recv(CHUNK)
            except OSError as error:
                if must_wait(error):
                    return None, False
                data = b""
            if not data:
                raise Unavailable(
                    "the connection to the container broke", hint="It may run on; see `flota ps -a`"
                )
            for kind, payload in self._unframer.feed(data):
                if kind in (STDOUT, STDERR):
                    _write(kind, payload)
                elif kind == EXIT:
                    return decode_json(payload, Exit), False
                elif kind == ERROR:
                    raise decode_json(payload, ErrorBody).to_error()
        return None, True

    # -- stdin --------------------------------------------------------------------------------------
    def _read_stdin(self) -> None:
        try:
            data = os.read(INPUT, CHUNK)
        except OSError:  # closed, or the terminal is gone
            data = b""
        if data and self._terminal:
            data = self._without_detach(data)
            if not data:
                return
        if not data:
            self._stdin = self._file = False
        self._unsent += pack(STDIN, data)

    def _without_detach(self, data: bytes) -> bytes:
        """Raises Detached at ctrl-p ctrl-q; a ctrl-p alone is held back until the next key."""
        data = self._last_key + data
        if DETACH in data:
            raise Detached
        self._last_key = data[-1:] if data.endswith(DETACH[:1]) else b""
        return data[: len(data) - len(self._last_key)]

    def _flush(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._sock.send(self._unsent[:CHUNK])]
        except OSError as error:
            if not must_wait(error):  # its end arrives on the other way
                self._unsent.clear()
                self._stdin = self._file = False

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
                self._unsent += pack(SIGNAL, bytes([number]))

    def _resize(self) -> None:
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(INPUT)
            self._unsent += pack_resize(size.lines, size.columns)


@contextlib.contextmanager
def _raw(fd: int) -> Iterator[None]:
    before = termios.tcgetattr(fd)
    tty.setraw(fd, termios.TCSANOW)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def must_wait(error: OSError) -> bool:
    """A socket that is not ready; TLS says so in its own way, and is loaded only where it is used."""
    tls = sys.modules.get("ssl")
    wants = (tls.SSLWantReadError, tls.SSLWantWriteError) if tls is not None else ()
    return isinstance(error, (BlockingIOError, *wants))


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
