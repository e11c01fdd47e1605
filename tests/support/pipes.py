"""Offered connections that lead nowhere: for tests of who holds them."""

from __future__ import annotations

import asyncio


class Transport(asyncio.Transport):
    """One that carries nothing: open, or closed. `said`: what was to be carried."""

    def __init__(self, protocol: asyncio.BaseProtocol) -> None:
        super().__init__()
        self._protocol = protocol
        self.closed = False
        self.said = b""
        protocol.connection_made(self)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.said += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    abort = close


class Offered:
    """`api.ports.Pipe` over nothing."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(self.reader)
        self.transport = Transport(protocol)
        self.writer = asyncio.StreamWriter(self.transport, protocol, self.reader, loop)
