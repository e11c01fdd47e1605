"""SSH agents of the client that a build may speak to: one connection for each that the host opens.

An agent is a socket of this machine, or keys of files, which are answered for here. Invariant: only agents
that the command line named are reached.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Callable, Mapping
from typing import Protocol

from model.build import OpenSsh, SshData, pack
from model.errors import InvalidInput

CHUNK = 1 << 15
MOST = 256
"""Connections at once."""


class Answering(Protocol):
    """One connection to an agent that is no process."""

    def feed(self, data: bytes) -> bytes:
        """Raises InvalidInput where it is to end."""
        ...


NONE: Mapping[str, Callable[[], Answering]] = {}


class Agents:
    """`selector` wakes the loop by the key `("ssh", channel)`. `keys`: agents without a socket."""

    def __init__(
        self,
        sockets: Mapping[str, str],
        selector: selectors.BaseSelector,
        keys: Mapping[str, Callable[[], Answering]] = NONE,
    ) -> None:
        self._sockets = sockets
        self._selector = selector
        self._keys = keys
        self._open: dict[int, socket.socket] = {}
        self._answering: dict[int, Answering] = {}

    def open(self, asked: OpenSsh) -> bytes:
        """Frames for the host, if it can't be had."""
        path, begin = self._sockets.get(asked.ident), self._keys.get(asked.ident)
        known = asked.channel in self._open or asked.channel in self._answering
        full = known or len(self._open) + len(self._answering) >= MOST
        if begin is not None and not full:
            self._answering[asked.channel] = begin()
            return b""
        one = socket.socket(socket.AF_UNIX)
        try:
            if path is None or full:
                raise OSError("not to be had")
            one.connect(path)
        except OSError:
            one.close()
            return pack(SshData(channel=asked.channel))
        self._open[asked.channel] = one
        self._selector.register(one, selectors.EVENT_READ, ("ssh", asked.channel))
        return b""

    def said(self, message: SshData) -> bytes:
        """Of the host; frames for it if the agent is gone."""
        if message.channel in self._answering:
            return self._answered(message)
        one = self._open.get(message.channel)
        if one is None:
            return b""
        if not message.data:
            return self._end(message.channel)
        try:
            one.sendall(message.data)
        except OSError:
            return self._end(message.channel)
        return b""

    def read(self, channel: int) -> bytes:
        """Frames for the host."""
        one = self._open.get(channel)
        if one is None:
            return b""
        try:
            data = one.recv(CHUNK)
        except OSError:
            data = b""
        return pack(SshData(channel=channel, data=data)) if data else self._end(channel)

    def _answered(self, message: SshData) -> bytes:
        channel, answers = message.channel, b""
        ended = not message.data
        try:
            answers = self._answering[channel].feed(message.data)
        except InvalidInput:
            ended = True
        if ended:
            del self._answering[channel]
            return pack(SshData(channel=channel))
        parts = (answers[at : at + CHUNK] for at in range(0, len(answers), CHUNK))
        return b"".join(pack(SshData(channel=channel, data=part)) for part in parts)

    def close(self) -> None:
        self._answering.clear()
        for channel in list(self._open):
            self._end(channel)

    def _end(self, channel: int) -> bytes:
        one = self._open.pop(channel)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(one)
        one.close()
        return pack(SshData(channel=channel))
