"""Listening on the gateways' addresses, by UDP and TCP, and handing each question to whoever answers.

An address is bound whether it is there yet or not (IP_FREEBIND), so that a bridge may come later and come
again. Addresses come and go without a pause for the others. TCP is bounded in connections, in all and of one
container, and in time.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from net.resolver.codec import MOST_QUERY
from net.sockets import bound

log = logging.getLogger("flota.resolver")

MOST_CONNECTIONS, MOST_OF_ONE = 256, 32
IDLE = 10.0
"""Seconds for a client to send the next question, or to take an answer."""
_BATCH = 64
"""Datagrams in a row before other sockets have their turn."""
_RECEIVE_BUFFER = 1 << 20

Send = Callable[[bytes], None]
Handle = Callable[[bytes, str, bool, Send], bytes | None]
"""(question, source address, by UDP, how to answer later) → the answer where there is one at once."""


class Listeners:
    def __init__(self, handle: Handle, port: int = 53) -> None:
        self._handle, self._port = handle, port
        self._udp: dict[str, socket.socket] = {}
        self._tcp: dict[str, asyncio.Server] = {}
        self._troubles: dict[str, str] = {}
        self._connections: set[asyncio.StreamWriter] = set()
        self._of: Counter[str] = Counter()
        self._rest = asyncio.Event()

    @property
    def addresses(self) -> set[str]:
        return {*self._udp, *self._tcp}

    @property
    def troubles(self) -> tuple[str, ...]:
        """Why addresses that should be listened on are not, in words."""
        return tuple(sorted(set(self._troubles.values())))

    async def apply(self, wanted: frozenset[str]) -> None:
        """Listen on these and no others; what could not be bound is tried again."""
        for address in self.addresses - wanted:
            self._close(address)
        for address in [address for address in self._troubles if address not in wanted]:
            del self._troubles[address]
        for address in sorted(wanted):
            if address not in self._udp or address not in self._tcp:
                await self._open(address)

    async def close(self) -> None:
        """All of it, and wait until the connections are gone."""
        await self.apply(frozenset())
        while self._connections:
            for writer in list(self._connections):
                writer.transport.abort()
            self._rest.clear()
            await self._rest.wait()

    async def _open(self, address: str) -> None:
        try:
            if address not in self._udp:
                self._udp[address] = sock = bound(address, self._port, socket.SOCK_DGRAM)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
                asyncio.get_running_loop().add_reader(sock.fileno(), self._readable, sock)
            if address not in self._tcp:
                sock = bound(address, self._port, socket.SOCK_STREAM)
                self._tcp[address] = await asyncio.start_server(self._connected, sock=sock)
        except (OSError, ValueError) as error:
            words = error.strerror if isinstance(error, OSError) else str(error)
            taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            hint = "; another DNS server holds it, maybe one that listens on all addresses" if taken else ""
            trouble = f"names: cannot listen on {address} port {self._port}: {words}{hint}"
            if self._troubles.get(address) != trouble:
                self._troubles[address] = trouble
                log.error("%s", trouble)
        else:
            if self._troubles.pop(address, None):
                log.info("names: listening on %s after all", address)

    def _close(self, address: str) -> None:
        if (sock := self._udp.pop(address, None)) is not None:
            asyncio.get_running_loop().remove_reader(sock.fileno())
            sock.close()
        if (server := self._tcp.pop(address, None)) is not None:
            server.close()

    # -- UDP ----------------------------------------------------------------------------------------
    def _readable(self, sock: socket.socket) -> None:
        handle = self._handle
        for _ in range(_BATCH):
            try:
                data, peer = sock.recvfrom(MOST_QUERY + 1)
            except OSError:
                return
            reply = handle(data, peer[0], True, partial(_send, sock, peer))
            if reply is not None:
                _send(sock, peer, reply)

    # -- TCP ----------------------------------------------------------------------------------------
    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        source = writer.get_extra_info("peername")[0]
        if len(self._connections) >= MOST_CONNECTIONS or self._of[source] >= MOST_OF_ONE:
            writer.transport.abort()
            return
        self._connections.add(writer)
        self._of[source] += 1
        try:
            await self._converse(reader, writer, source)
        except (OSError, EOFError, TimeoutError):
            pass
        finally:
            self._connections.discard(writer)
            self._of[source] -= 1
            if not self._of[source]:
                del self._of[source]
            if writer.transport.get_write_buffer_size():
                writer.transport.abort()
            writer.close()
            self._rest.set()

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: str
    ) -> None:
        """One question after the other (RFC 7766 allows it), until the client ends or is too slow."""
        while True:
            async with asyncio.timeout(IDLE):
                size = int.from_bytes(await reader.readexactly(2), "big")
                data = await reader.readexactly(size)
            late: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            reply = self._handle(data, source, False, partial(_settle, late))
            async with asyncio.timeout(IDLE):
                if reply is None:
                    reply = await late
                writer.write(len(reply).to_bytes(2, "big") + reply)
                await writer.drain()


def _send(sock: socket.socket, peer: Any, reply: bytes) -> None:
    """A full buffer, a container that is gone, an address that was given up: a datagram may be lost."""
    with contextlib.suppress(OSError):
        sock.sendto(reply, peer)


def _settle(future: asyncio.Future[bytes], reply: bytes) -> None:
    if not future.done():
        future.set_result(reply)
