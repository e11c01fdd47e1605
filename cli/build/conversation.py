"""The client's end of a build's connection: one socket, one selector, no event loop.

Neither direction waits for the other: what can't be sent yet is kept, and no more is read to be sent until it
is. Invariant: however this ends, the terminal is as it was, and nothing half-written has a name.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Iterator
from typing import Any

from cli.build.agents import Agents
from cli.build.answers import Answers
from cli.build.display import Display
from cli.build.outputs import Outputs
from cli.build.terminal import Terminal
from cli.terminal import must_wait
from model.build import (
    FROM_HOST,
    AskSecret,
    BuildRequest,
    Done,
    Exported,
    Failed,
    FromHost,
    OpenSsh,
    Scan,
    ShellBegan,
    SshData,
    Start,
    StepSaid,
    Taken,
    Unframer,
    Want,
    pack,
)
from model.errors import Damaged, Unavailable

CHUNK = 1 << 18
ENOUGH = 1 << 20
"""Bytes that wait to be sent, at which no more are fetched."""
READS = 16
"""Pieces that are read before the rest has its turn."""


class Conversation:
    """`run` it once. `sock` may hold early bytes."""

    def __init__(self, sock: Any, display: Display, outputs: Outputs) -> None:
        self._sock = sock
        self._display = display
        self._outputs = outputs
        self._selector = selectors.DefaultSelector()
        self._unframer = Unframer(FROM_HOST)
        self._unsent = bytearray()
        self._ended: Done | Failed | None = None
        self._terminal = Terminal(self._selector)
        self._sending = False

    def run(
        self, request: BuildRequest, answers: Answers, wake: socket.socket, agents: Agents
    ) -> Done | Failed:
        """How it ended. Raises Unavailable where the connection broke, and what can't be written here."""
        self._answers, self._agents, self._wake = answers, agents, wake
        self._lends = request.on_failure == "shell"
        self._unsent += pack(Start(request=request))
        with contextlib.ExitStack() as stack:
            stack.callback(self._selector.close)
            stack.callback(self._outputs.close)
            stack.callback(self._agents.close)
            stack.callback(self._display.close)
            stack.callback(self._terminal.close)
            self._sock.setblocking(False)
            wake.setblocking(False)
            self._selector.register(self._sock.fileno(), selectors.EVENT_READ, "server")
            self._selector.register(wake, selectors.EVENT_READ, "wake")
            while self._ended is None:
                self._turn()
        return self._ended

    @property
    def selector(self) -> selectors.BaseSelector:
        return self._selector

    def _turn(self) -> None:
        self._fetch()
        self._flush()
        more = self._read()
        if self._ended is not None:
            return
        self._watch()
        ready = self._selector.select(0 if more else self._display.period)
        for key, _ in ready:
            match key.data:
                case "wake":
                    with contextlib.suppress(BlockingIOError):
                        self._wake.recv(4096)
                case ("ssh", int() as channel):
                    self._unsent += self._agents.read(channel)
                case "typed":
                    self._unsent += self._terminal.typed()
        if not self._terminal.taken:
            self._display.tick()

    def _fetch(self) -> None:
        if len(self._unsent) < ENOUGH:
            self._unsent += self._answers.take()
            self._unsent += self._terminal.resized()

    def _flush(self) -> None:
        try:
            while self._unsent:
                sent = self._sock.send(memoryview(self._unsent)[:CHUNK])
                del self._unsent[:sent]
        except OSError as error:
            if not must_wait(error):  # why is read on the other way
                self._unsent.clear()

    def _watch(self) -> None:
        writing = selectors.EVENT_WRITE if self._unsent else 0
        if bool(writing) != self._sending:
            self._sending = bool(writing)
            self._selector.modify(self._sock.fileno(), selectors.EVENT_READ | writing, "server")

    def _read(self) -> bool:
        """Whether more may be here already: TLS may hold more than the selector sees."""
        for _ in range(READS):
            try:
                data = self._sock.recv(CHUNK)
            except OSError as error:
                if must_wait(error):
                    return False
                data = b""
            if not data:
                raise Unavailable(
                    "the connection to the build broke",
                    hint="Its host may be lost; see `flota node ls`. Build again: what was done is cached",
                )
            for message in self._unframer.feed(data):
                self._take(message)
                if self._ended is not None:
                    return False
        return True

    def _take(self, message: FromHost) -> None:
        match message:
            case Scan() | Want() | AskSecret():
                self._answers.ask(message)
            case OpenSsh():
                self._unsent += self._agents.open(message)
            case SshData():
                self._unsent += self._agents.said(message)
            case Exported():
                self._written(message)
            case ShellBegan():
                if not self._lends or self._terminal.taken:
                    raise Damaged("the host opens a shell that was not asked for")
                self._display.pause()
                self._terminal.take(message.step)
            case StepSaid() if self._terminal.taken == message.step:
                self._terminal.show(message.data)
            case Done() | Failed():
                self._display.take(message)
                self._ended = message
            case _:
                self._display.take(message)

    def _written(self, message: Exported) -> None:
        if message.data:
            self._outputs.write(message.output, message.data)
            self._unsent += pack(Taken(size=len(message.data)))
        if message.last:
            self._outputs.finish(message.output)


@contextlib.contextmanager
def waker() -> Iterator[tuple[socket.socket, int]]:
    """(what the loop watches, the descriptor that threads write to)."""
    here, there = socket.socketpair()
    with here, there:
        yield here, there.fileno()
