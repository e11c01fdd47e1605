"""Echo requests (RFC 792, RFC 4443) to many targets at once, none of them ever fragmented.

A raw socket per source address; answers are told apart by identifier and sequence number. Invariant: nothing
but answers to what was asked here counts.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable, Sequence
from functools import partial

from model.spec import Struct
from net.kernel import netns

TRIES, PATIENCE = 3, 0.4
"""So often each is asked, so many seconds apart."""
PORTION = 64
"""So many are sent before answers are read."""
BUFFER = 8 << 20
"""Bytes of packets that may wait: some thousands of the largest."""
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_PROBE = 10, 23, 3
"""ip(7): don't fragment, and ask the kernel's memory of paths nothing."""
REQUEST, REPLY, REQUEST6, REPLY6 = 8, 0, 128, 129
HEAD = 8
HEADERS = {4: 20 + HEAD, 6: 40 + HEAD}
"""Bytes of a packet that are not payload."""


class Echo(Struct):
    """`size`: of the whole packet, from the IP header on."""

    source: str
    target: str
    size: int


class Answer(Struct):
    """`seconds` None: there was none; then `error` may say why it could not be sent."""

    seconds: float | None = None
    error: str = ""


async def ask(echoes: Sequence[Echo], namespace: str = "") -> list[Answer]:
    """One answer for each, after 1.2 s at most; asked in the network namespace at that path. Raises OSError
    without the right to raw sockets, or without the namespace."""
    asking = _Asking(echoes)
    try:
        asking.open(_made if not namespace else partial(netns.inside, namespace))
        for _ in range(TRIES):
            if not await asking.send():
                break
            await asking.settled(PATIENCE)
            asking.read()
    finally:
        asking.close()
    return asking.answers


def _made(make: Callable[[], socket.socket]) -> socket.socket:
    return make()


def _socket(six: bool) -> socket.socket:
    protocol = socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP
    family = socket.AF_INET6 if six else socket.AF_INET
    return socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)


def _widen(link: socket.socket) -> None:
    """Past what net.core.rmem_max and wmem_max allow, where we may."""
    kinds = ((SO_SNDBUFFORCE, socket.SO_SNDBUF), (SO_RCVBUFFORCE, socket.SO_RCVBUF))
    for forced, asked in kinds:
        try:
            link.setsockopt(socket.SOL_SOCKET, forced, BUFFER)
        except PermissionError:
            link.setsockopt(socket.SOL_SOCKET, asked, BUFFER)


class _Asking:
    def __init__(self, echoes: Sequence[Echo]) -> None:
        self._echoes = echoes
        self.answers = [Answer() for _ in echoes]
        self._sockets: dict[str, socket.socket] = {}
        self._identifier = int.from_bytes(os.urandom(2), "big")
        self._open = set(range(len(echoes)))
        """Those that have no answer yet."""
        self._sent: dict[int, float] = {}
        self._done = asyncio.Event()
        """Nothing is open."""

    def open(self, place: Callable[[Callable[[], socket.socket]], socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        for source in {echo.source for echo in self._echoes}:
            six = ":" in source
            link = place(partial(_socket, six))
            self._sockets[source] = link
            _widen(link)
            if six:
                link.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)
            else:
                link.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)
            try:
                link.bind((source, 0))
            except OSError as error:
                self._refuse(source, f"this host has no address {source}: {error.strerror}")
                continue
            loop.add_reader(link, self._read, link, six)

    def close(self) -> None:
        for link in self._sockets.values():
            asyncio.get_running_loop().remove_reader(link)
            link.close()

    async def send(self) -> bool:
        """All that have no answer yet; False when there are none."""
        for order, number in enumerate(sorted(self._open), 1):
            self._send(number, self._echoes[number])
            if order % PORTION == 0:
                await asyncio.sleep(0)
        return bool(self._open)

    def _send(self, number: int, echo: Echo) -> None:
        self._sent.setdefault(number, asyncio.get_running_loop().time())
        try:
            self._sockets[echo.source].sendto(self._packet(number, echo), (echo.target, 0))
        except BlockingIOError:
            return  # the next try
        except OSError as error:
            words = {
                errno.EMSGSIZE: f"packets of {echo.size} bytes don't fit through this host's own link",
                errno.ENETUNREACH: f"this host has no route to {echo.target}",
                errno.EHOSTUNREACH: f"this host has no way to {echo.target}",
            }
            said = words.get(error.errno or 0, f"{echo.target}: {error.strerror}")
            self._settle(number, Answer(error=said))

    def _settle(self, number: int, answer: Answer) -> None:
        """The first word counts."""
        if number in self._open:
            self._open.discard(number)
            self.answers[number] = answer
        if not self._open:
            self._done.set()

    async def settled(self, deadline: float) -> None:
        """Until everything is answered, or so many seconds later."""
        try:
            async with asyncio.timeout(deadline):
                await self._done.wait()
        except TimeoutError:
            pass

    def read(self) -> None:
        """All that has come: on a busy machine answers may have waited for this process."""
        for source, link in self._sockets.items():
            while self._open and self._read(link, ":" in source):
                pass

    def _refuse(self, source: str, error: str) -> None:
        for number, echo in enumerate(self._echoes):
            if echo.source == source:
                self._settle(number, Answer(error=error))

    def _packet(self, number: int, echo: Echo) -> bytes:
        """The kernel fills the checksum of ICMPv6 (RFC 3542, section 3.1)."""
        six = ":" in echo.target
        payload = struct.pack("!I", number) + bytes(max(0, echo.size - HEADERS[6 if six else 4] - 4))
        head = struct.pack("!BBHHH", REQUEST6 if six else REQUEST, 0, 0, self._identifier, number & 0xFFFF)
        if six:
            return head + payload
        total = checksum(head + payload)
        return head[:2] + struct.pack("!H", total) + head[4:] + payload

    def _read(self, link: socket.socket, six: bool) -> bool:
        """One packet, if there is any."""
        try:
            data, _ = link.recvfrom(1 << 16)
        except OSError:
            return False
        self._take(data, six)
        return True

    def _take(self, data: bytes, six: bool) -> None:
        body = data if six else data[(data[0] & 0x0F) * 4 :]
        if len(body) < HEAD + 4 or body[0] != (REPLY6 if six else REPLY):
            return
        identifier, _ = struct.unpack_from("!HH", body, 4)
        (number,) = struct.unpack_from("!I", body, HEAD)
        if identifier != self._identifier or number not in self._sent:
            return
        taken = asyncio.get_running_loop().time() - self._sent[number]
        self._settle(number, Answer(seconds=taken))


def checksum(data: bytes) -> int:
    """Of IPv4's ICMP (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total
