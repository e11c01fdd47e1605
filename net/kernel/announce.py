"""Telling a segment whose an address is now: gratuitous ARP and unsolicited neighbour advertisements.

Sent from the host's side, out of the bridge itself: a port that was just made does not forward for some
milliseconds. Neighbours that know the address take the new MAC at once, tunnels learn where it is.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from collections.abc import Iterable

ALL, ALL_NODES = b"\xff" * 6, bytes.fromhex("333300000001")
ARP, IPV6 = 0x0806, 0x86DD
ADVERTISEMENT, OVERRIDE, TARGET_LINK = 136, 0x20000000, 2


class Herald:
    """One socket for all: closing one that sees packets waits until no processor uses it any more. It
    receives nothing."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def tell(self, link: str, mac: str, addresses: Iterable[str]) -> None:
        """These addresses are at `mac`. Nobody answers; what is lost, neighbours find out by themselves
        later, so a link that goes meanwhile is no error."""
        if self._socket is None:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        for address in addresses:
            with contextlib.suppress(OSError):
                self._socket.sendto(frame(mac, address), (link, 0))

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()


def frame(mac: str, address: str) -> bytes:
    """For the whole segment."""
    return _advertisement(mac, address) if ":" in address else _gratuitous(mac, address)


def _gratuitous(mac: str, address: str) -> bytes:
    """An ARP announcement (RFC 5227, 2.3): a request for one's own address."""
    own, ip = _raw(mac), socket.inet_aton(address)
    head = ALL + own + struct.pack("!H", ARP)
    return head + struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + own + ip + bytes(6) + ip


def _advertisement(mac: str, address: str) -> bytes:
    """An unsolicited advertisement to all nodes that overrides what they know (RFC 4861, 7.2.6)."""
    own, ip = _raw(mac), ipaddress.IPv6Address(address).packed
    everybody = ipaddress.IPv6Address("ff02::1").packed
    body = struct.pack("!BBHI", ADVERTISEMENT, 0, 0, OVERRIDE) + ip + struct.pack("!BB", TARGET_LINK, 1) + own
    pseudo = ip + everybody + struct.pack("!II", len(body), socket.IPPROTO_ICMPV6)
    body = body[:2] + struct.pack("!H", _checksum(pseudo + body)) + body[4:]
    head = struct.pack("!IHBB", 6 << 28, len(body), socket.IPPROTO_ICMPV6, 255)
    return ALL_NODES + own + struct.pack("!H", IPV6) + head + ip + everybody + body


def _raw(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
