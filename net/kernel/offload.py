"""Whether what goes through tunnels arrives with right checksums, and the switch that makes it so.

Of a packet that a socket here sends, the network card is to fill in the checksum, inside the tunnel too. Some
cards, and some kernels with them, spoil it: nothing but pings gets through. Asked are closed UDP ports of
peers, by their addresses in networks: a kernel that gets the datagram whole answers that nobody is there
(RFC 1122, 4.1.3.1), one that finds a wrong checksum says nothing. A second one without a checksum (RFC 768)
tells this from a peer that can't be reached or does not answer.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import fcntl
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence

from msgspec.structs import replace

from net.state import NetState

Way = tuple[str, str]
"""Own address and the peer's, IPv4."""
PORT = 33434
"""Where traceroute begins: nobody listens there."""
TRIES, PATIENCE, AT_ONCE = 3, 0.3, 64
SIOCETHTOOL, ETHTOOL_GTXCSUM, ETHTOOL_STXCSUM = 0x8946, 0x16, 0x17
SO_NO_CHECK = 11


Ask = Callable[[Sequence[Way], bool], Awaitable[Mapping[Way, bool]]]
"""Whether datagrams, without a checksum if the second says so, are answered on each way."""


async def try_ways(ways: Sequence[Way], ask: Ask | None = None) -> Mapping[Way, bool]:
    """Of those on which anything arrives: whether datagrams with a checksum do. A peer that has just begun to
    answer is no spoilt checksum: both are asked twice, by turns."""
    ask = ask or _asked
    arrives = dict(await ask(ways, False))
    for _ in range(2):
        silent = [way for way, whole in arrives.items() if not whole]
        bare = await ask(silent, True)
        arrives = {way: whole for way, whole in arrives.items() if whole or bare[way]}
        heard = [way for way in silent if bare[way]]
        arrives |= await ask(heard, False)
    return arrives


async def _asked(ways: Sequence[Way], bare: bool) -> Mapping[Way, bool]:
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(way: Way) -> tuple[Way, bool]:
        async with turn:
            return way, await _answered(way, bare)

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(one(way)) for way in ways]
    return dict(task.result() for task in asked)


async def _answered(way: Way, bare: bool) -> bool:
    source, target = way
    with socket.socket(
        socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    ) as asking:
        if bare:
            asking.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
        try:
            asking.bind((source, 0))
            asking.connect((target, PORT))
        except OSError:
            return False
        for _ in range(TRIES):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    return await _refused(asking)
    return False


async def _refused(asking: socket.socket) -> bool:
    """Send, and wait for the word that nobody is there."""
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_sendall(asking, b"flota")
        await loop.sock_recv(asking, 16)
    except OSError as error:
        return error.errno == errno.ECONNREFUSED
    return True  # somebody does listen there


def leaves_checksums(link: str) -> bool:
    """Whether a device leaves checksums of what it sends to what is below it. Raises OSError."""
    return bool(_ethtool(link, ETHTOOL_GTXCSUM, 0))


def leave_checksums(link: str, wanted: bool) -> None:
    """Raises OSError."""
    _ethtool(link, ETHTOOL_STXCSUM, int(wanted))


def _ethtool(link: str, command: int, value: int) -> int:
    """One `struct ethtool_value` (Linux ethtool.h)."""
    data = array.array("I", [command, value])
    request = struct.pack("16sP16x", link.encode(), data.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
        fcntl.ioctl(asking, SIOCETHTOOL, request)
    return data[1]


def seen(state: NetState) -> NetState:
    """With what only this switch knows of tunnels."""
    links = dict(state.links)
    for name, link in state.links.items():
        if link.vxlan is not None:
            with contextlib.suppress(OSError):  # it goes just now
                vxlan = replace(link.vxlan, checksums=leaves_checksums(name))
                links[name] = replace(link, vxlan=vxlan)
    return replace(state, links=links)
