"""Is an address free on a link? And: it is mine now. ARP (RFC 826, RFC 5227) and neighbour discovery (RFC
4861, RFC 4862) as frames of a packet socket (packet(7)).

The asking is RFC 5227's and RFC 4862's in a short form: `PROBES` questions, `GAP` apart, and an end after
`WINDOW`, in place of up to seven seconds. A machine on the link answers within a millisecond or two; what the
short form risks is one that sleeps or is being plugged in just now. All addresses of an endpoint are asked
about at once. Invariant: an address is taken exactly when another MAC says that it has it, or asks for itself
whether it may have it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import ipaddress
import socket
import struct
from collections.abc import Iterable, Mapping

PROBES, GAP, WINDOW = 3, 0.06, 0.2
"""Seconds."""
ETH_P_ALL, ETH_P_ARP, ETH_P_IPV6 = 0x0003, 0x0806, 0x86DD
SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_MR_MULTICAST = 263, 1, 0
SIOCGIFFLAGS, IFF_NOARP = 0x8913, 0x80
ARP_REQUEST, ARP_REPLY = 1, 2
SOLICIT, ADVERT, ICMPV6 = 135, 136, 58
OVERRIDE = 0x20000000
BROADCAST, ALL_NODES_MAC = b"\xff" * 6, b"\x33\x33\x00\x00\x00\x01"
ALL_NODES = ipaddress.IPv6Address("ff02::1").packed
MOST_FRAMES = 256
"""That are looked at before others have their turn."""


def probe(address: str, mac: bytes) -> bytes:
    """Does anybody have it? Asked without a claim to it."""
    wanted = ipaddress.ip_address(address)
    if wanted.version == 4:
        return _arp(mac, ARP_REQUEST, mac, bytes(4), bytes(6), wanted.packed)
    body = struct.pack("!BBHI", SOLICIT, 0, 0, 0) + wanted.packed
    target = _solicited(wanted.packed)
    return _nd(mac, b"\x33\x33" + target[-4:], bytes(16), target, body)


def announcement(address: str, mac: bytes) -> bytes:
    """It is mine: caches that know another MAC for it learn this one."""
    own = ipaddress.ip_address(address)
    if own.version == 4:
        return _arp(mac, ARP_REQUEST, mac, own.packed, bytes(6), own.packed)
    body = struct.pack("!BBHI", ADVERT, 0, 0, OVERRIDE) + own.packed + b"\x02\x01" + mac
    return _nd(mac, ALL_NODES_MAC, own.packed, ALL_NODES, body)


def claim(frame: bytes) -> tuple[bytes, bytes] | None:
    """Who (MAC) claims which address (packed) by this frame; None: nobody any."""
    if len(frame) < 42:
        return None
    (kind,) = struct.unpack_from("!H", frame, 12)
    if kind == ETH_P_ARP:
        if struct.unpack_from("!HHBB", frame, 14) != (1, 0x0800, 6, 4):
            return None
        sender, told, asked = frame[22:28], frame[28:32], frame[38:42]
        return sender, told if any(told) else asked
    if kind != ETH_P_IPV6 or len(frame) < 78 or frame[20] != ICMPV6 or frame[21] != 255:
        return None
    what, source, target = frame[54], frame[22:38], frame[62:78]
    if what == ADVERT:
        return _said_mac(frame) or frame[6:12], target
    if what == SOLICIT and not any(source):
        return frame[6:12], target
    return None


def _said_mac(frame: bytes) -> bytes:
    """The target's link-layer address, where an advertisement says it first (RFC 4861 4.4)."""
    return frame[80:86] if len(frame) >= 86 and frame[78:80] == b"\x02\x01" else b""


class Asking:
    """`link` is a packet socket of `opened`. Needs a running loop."""

    def __init__(self, link: socket.socket, mac: bytes, addresses: Iterable[str]) -> None:
        self._link, self._mac = link, mac
        self._texts = {ipaddress.ip_address(a).packed: a for a in addresses}
        self._taken: dict[str, str] = {}
        self._all = asyncio.Event()

    async def ask(self) -> Mapping[str, str]:
        """Those that are taken, each with the MAC of who has it. After `WINDOW` seconds, at once when all
        are."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._link, self._read)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WINDOW):
                    for _ in range(PROBES):
                        self._send()
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(self._all.wait(), GAP)
                    await self._all.wait()
        finally:
            loop.remove_reader(self._link)
        return self._taken

    def _send(self) -> None:
        for address in self._texts.values():
            if address not in self._taken:
                self._link.send(probe(address, self._mac))

    def _read(self) -> None:
        for _ in range(MOST_FRAMES):
            try:
                frame = self._link.recv(2048)
            except OSError:
                return
            found = claim(frame)
            if found is None or found[0] == self._mac or found[1] not in self._texts:
                continue
            self._taken[self._texts[found[1]]] = found[0].hex(":")
            if len(self._taken) == len(self._texts):
                self._all.set()


def opened(ifname: str, addresses: Iterable[str]) -> socket.socket:
    """In the calling thread's namespace; hears what is said on that link, also to the groups by which these
    addresses are asked about. Raises OSError."""
    flags = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    link = socket.socket(socket.AF_PACKET, flags, 0)
    try:
        index = socket.if_nametoindex(ifname)
        six = [a for a in map(ipaddress.ip_address, addresses) if a.version == 6]
        groups = {b"\x33\x33" + _solicited(a.packed)[-4:] for a in six} | ({ALL_NODES_MAC} if six else set())
        for group in groups:
            request = struct.pack("=iHH8s", index, PACKET_MR_MULTICAST, 6, group)
            link.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, request)
        link.bind((ifname, ETH_P_ALL if six else ETH_P_ARP))
    except OSError:
        link.close()
        raise
    return link


def mac_of(link: socket.socket) -> bytes:
    """Of the link that a packet socket is bound to."""
    found: bytes = link.getsockname()[4]
    return found


def has_none(link: socket.socket) -> bool:
    """Whether nobody is asked for on the link that a packet socket is bound to, as on ipvlan's of layer 3: it
    takes no such frames."""
    (flags,) = struct.unpack_from(
        "=H", fcntl.ioctl(link, SIOCGIFFLAGS, struct.pack("=16s24x", link.getsockname()[0].encode())), 16
    )
    return bool(flags & IFF_NOARP)


def announce(ifname: str, addresses: Iterable[str]) -> None:
    """Tell the link, from the calling thread's namespace. Raises OSError."""
    known = tuple(addresses)
    if not known:
        return
    with opened(ifname, ()) as link:
        for address in () if has_none(link) else known:
            link.send(announcement(address, mac_of(link)))


def _arp(source: bytes, operation: int, sender: bytes, own: bytes, target: bytes, asked: bytes) -> bytes:
    head = BROADCAST + source + struct.pack("!HHHBBH", ETH_P_ARP, 1, 0x0800, 6, 4, operation)
    return head + sender + own + target + asked


def _nd(source: bytes, to: bytes, own: bytes, target: bytes, body: bytes) -> bytes:
    """With the checksum of RFC 4443 2.3, and the hop limit that proves a message to be of the link."""
    pseudo = own + target + struct.pack("!II", len(body), ICMPV6)
    total = sum(struct.unpack(f"!{len(pseudo + body) // 2}H", pseudo + body))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    body = body[:2] + struct.pack("!H", 0xFFFF - total) + body[4:]
    head = struct.pack("!IHBB", 0x60000000, len(body), ICMPV6, 255) + own + target
    return to + source + struct.pack("!H", ETH_P_IPV6) + head + body


def _solicited(address: bytes) -> bytes:
    """The group by which an address is asked for (RFC 4291 2.7.1)."""
    return ipaddress.IPv6Address("ff02::1:ff00:0").packed[:13] + address[-3:]
