"""A foreign name server that behaves as it is told, and a resolver under test beside it on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from aio.supervisor import Supervisor
from model.codec import decode_json
from net.resolver.hostconf import HostServers
from net.resolver.serve import Resolver
from net.resolver.state import VERSION, ResolverState
from net.resolver.statefile import whole
from net.supervise.files import SERVED, STATE, Served, mark_of
from net.supervise.place import Place
from tests.support.ports import free_port
from tests.support.waiting import until

Behaviour = Callable[[dns.message.Message, bool], list[bytes]]
"""(question, by UDP) → what is sent back, in this order."""


def answer(
    words: dns.message.Message, *addresses: str, ttl: int = 60, rcode: str = "NOERROR", cut: bool = False
) -> bytes:
    reply = dns.message.make_response(words, recursion_available=True)
    reply.set_rcode(dns.rcode.from_text(rcode))
    if addresses:
        reply.answer.append(dns.rrset.from_text(words.question[0].name, ttl, "IN", "A", *addresses))
    if cut:
        reply.flags |= dns.flags.TC
    return reply.to_wire(max_size=65535)


class NameServer(asyncio.DatagramProtocol):
    """On one loopback address, UDP and TCP. `asked` are the questions' names, upper and lower case kept."""

    def __init__(self, address: str, port: int, behave: Behaviour) -> None:
        self.address, self.port, self.behave = address, port, behave
        self.asked: list[str] = []
        self.ports: set[int] = set()
        self.idents: list[int] = []
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        self.ports.add(addr[1])
        for reply in self._replies(data, True):
            self._transport.sendto(reply, addr)

    def _replies(self, data: bytes, udp: bool) -> list[bytes]:
        words = dns.message.from_wire(data)
        self.asked.append(words.question[0].name.to_text())
        self.idents.append(words.id)
        return self.behave(words, udp)

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(EOFError, OSError):
            (size,) = struct.unpack("!H", await reader.readexactly(2))
            for reply in self._replies(await reader.readexactly(size), False):
                writer.write(struct.pack("!H", len(reply)) + reply)
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def name_server(address: str, port: int, behave: Behaviour) -> AsyncIterator[NameServer]:
    loop = asyncio.get_running_loop()
    made = NameServer(address, port, behave)
    transport, _ = await loop.create_datagram_endpoint(lambda: made, local_addr=(address, port))
    server = await asyncio.start_server(made.converse, address, port)
    try:
        yield made
    finally:
        transport.close()
        server.close()
        await server.wait_closed()


class ResolverLab:
    """A resolver in this process; `put` gives it a state and waits for its verdict."""

    def __init__(self, folder: Path, resolv_conf: str = "") -> None:
        self.folder, self.port, self.upstream_port = folder, free_port(), free_port()
        (folder / "resolv.conf").write_text(resolv_conf)
        self.place = Place(str(folder), VERSION)
        self.resolver = Resolver(
            self.place,
            host=HostServers(str(folder / "resolv.conf")),
            port=self.port,
            upstream_port=self.upstream_port,
        )

    @property
    def verdict(self) -> Served | None:
        data = (self.folder / SERVED).read_bytes()
        return decode_json(data, Served) if data else None

    async def put(self, state: ResolverState | bytes) -> Served:
        data = state if isinstance(state, bytes) else whole(state)
        aside = self.folder / "new"
        aside.write_bytes(data)
        os.replace(aside, self.folder / STATE)

        def told() -> Served | None:
            verdict = self.verdict
            return verdict if verdict is not None and verdict.mark == mark_of(data) else None

        found = await until(told, deadline=5, what="a verdict")
        assert isinstance(found, Served)
        return found

    async def ask(
        self, words: dns.message.Message, *, to: str, source: str = "127.0.0.1", deadline: float = 6.0
    ) -> dns.message.Message:
        """By UDP, as a container that has this address."""
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in to else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.bind((source, 0))
            await loop.sock_connect(sock, (to, self.port))
            await loop.sock_sendall(sock, words.to_wire())
            async with asyncio.timeout(deadline):
                data = await loop.sock_recv(sock, 65535)
        reply = dns.message.from_wire(data, raise_on_truncation=False)
        assert reply.id == words.id and reply.question == words.question
        return reply

    async def ask_by_tcp(
        self, *words: dns.message.Message, to: str, source: str = "127.0.0.1"
    ) -> list[dns.message.Message]:
        reader, writer = await asyncio.open_connection(to, self.port, local_addr=(source, 0))
        try:
            async with asyncio.timeout(6):
                for one in words:
                    data = one.to_wire()
                    writer.write(struct.pack("!H", len(data)) + data)
                found = []
                for _ in words:
                    (size,) = struct.unpack("!H", await reader.readexactly(2))
                    found.append(dns.message.from_wire(await reader.readexactly(size)))
                return found
        finally:
            writer.close()
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def resolver_lab(folder: Path, resolv_conf: str = "") -> AsyncIterator[ResolverLab]:
    made = ResolverLab(folder, resolv_conf)
    try:
        async with Supervisor("test") as supervisor:
            supervisor.start("resolver", made.resolver.run)
            await until(lambda: made.verdict, deadline=5, what="the first verdict")
            yield made
            await supervisor.stop("resolver")
    finally:
        made.place.close()
