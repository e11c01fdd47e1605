"""SSH agents of the client that a build may speak to: one connection for each that the host opens.

Invariant: only agents that the command line named are reached.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Mapping

from model.build import OpenSsh, SshData, pack

CHUNK = 1 << 15
MOST = 256
"""Connections at once."""


class Agents:
    """`selector` wakes the loop by the key `("ssh", channel)`."""

    def __init__(self, sockets: Mapping[str, str], selector: selectors.BaseSelector) -> None:
        self._sockets = sockets
        self._selector = selector
        self._open: dict[int, socket.socket] = {}

    def open(self, asked: OpenSsh) -> bytes:
        """Frames for the host, if it can't be had."""
        path = self._sockets.get(asked.ident)
        one = socket.socket(socket.AF_UNIX)
        try:
            if path is None or asked.channel in self._open or len(self._open) >= MOST:
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

    def close(self) -> None:
        for channel in list(self._open):
            self._end(channel)

    def _end(self, channel: int) -> bytes:
        one = self._open.pop(channel)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(one)
        one.close()
        return pack(SshData(channel=channel))
