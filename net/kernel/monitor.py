"""A bell from the kernel: something of the network changed, by us or by others.

Three sockets, two of rtnetlink (one hears of containers' namespaces) and one of nftables, are read in the
event loop; of a message, only what says whether it may mean damage is looked at: its type, and of additions
where they are and whether they replaced something. What exactly happened is found by observing. A full socket
buffer (ENOBUFS) is a ring too.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Iterator

from net.naming import PREFIXES, VXLAN

NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
HEADER = 16
SOL_NETLINK, ADD_MEMBERSHIP, DROP_MEMBERSHIP, LISTEN_ALL_NSID = 270, 1, 2, 8
RTNLGRP = (1, 3, 4, 5, 7, 8, 9, 11, 19, 24, 25)
"""LINK, NEIGH, TC, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, IPV6_IFADDR, IPV6_ROUTE, IPV6_RULE, IPV4_NETCONF,
IPV6_NETCONF (linux/rtnetlink.h). Of the switches below /proc/sys only some are told of: forwarding,
rp_filter."""
NFNLGRP_NFTABLES = 7
RTM_TELLING = frozenset({16, 17, 21, 25, 33, 36, 37, 45, 80})
"""NEWLINK, DELLINK, DELADDR, DELROUTE, DELRULE, NEWQDISC, DELQDISC, DELTFILTER, NEWNETCONF."""
RTM_DELLINK = 17
RTM_NEWADDR, RTM_NEWROUTE, RTM_NEWNEIGH, RTM_DELNEIGH = 20, 24, 28, 29
NLM_F_REPLACE, NUD_PERMANENT, AF_BRIDGE = 0x100, 0x80, 7
NFT_NEWGEN = 10 << 8 | 15
"""Ends each nft transaction (linux/netfilter/nf_tables.h)."""

Tells = Callable[[int, int, bytes], bool]
"""Whether a message (type, flags, payload) may mean damage."""


class Monitor:
    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._sockets: list[socket.socket] = []
        self._nft: socket.socket | None = None

    def start(self) -> None:
        """Listen from now on; needs a running loop."""
        route_groups = sum(1 << (group - 1) for group in RTNLGRP)
        self._listen(NETLINK_ROUTE, route_groups, _route_tells)
        others = self._listen(NETLINK_ROUTE, 1, _other_tells)
        others.setsockopt(SOL_NETLINK, LISTEN_ALL_NSID, 1)
        self._nft = self._listen(NETLINK_NETFILTER, 1 << (NFNLGRP_NFTABLES - 1), _nft_tells)

    def close(self) -> None:
        loop = asyncio.get_running_loop()
        for link in self._sockets:
            loop.remove_reader(link)
            link.close()
        self._sockets.clear()

    @contextlib.contextmanager
    def deaf_to_nft(self) -> Iterator[None]:
        """Not told of nft for a while, and rung at its end: the kernel makes a message of 4 KiB for each
        element of a transaction that anybody hears of."""
        if self._nft is None:
            yield
            return
        self._nft.setsockopt(SOL_NETLINK, DROP_MEMBERSHIP, NFNLGRP_NFTABLES)
        try:
            yield
        finally:
            self._nft.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, NFNLGRP_NFTABLES)
            self._ring()

    def _listen(self, protocol: int, groups: int, tells: Tells) -> socket.socket:
        link = listener(protocol, groups)
        self._sockets.append(link)
        asyncio.get_running_loop().add_reader(link, self._read, link, tells)
        return link

    def _read(self, link: socket.socket, tells: Tells) -> None:
        try:
            data = link.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            self._ring()
            return
        if any(tells(*message) for message in messages(data)):
            self._ring()


def _nft_tells(kind: int, flags: int, payload: bytes) -> bool:
    return kind == NFT_NEWGEN


def _other_tells(kind: int, flags: int, payload: bytes) -> bool:
    """Of all namespaces that have a number here: a link that stood on one of ours is gone from a
    container."""
    return kind == RTM_DELLINK and (b"macvlan\0" in payload or b"ipvlan\0" in payload)


def _route_tells(kind: int, flags: int, payload: bytes) -> bool:
    """Additions are most of what a busy host says, and nearly always somebody's own."""
    match kind:
        case _ if kind in RTM_TELLING:
            return True
        case _ if kind == RTM_NEWROUTE:
            return bool(flags & NLM_F_REPLACE)
        case _ if kind == RTM_NEWADDR:
            return _stands_on(payload, PREFIXES)
        case _ if kind == RTM_NEWNEIGH:
            learned = payload[0] == AF_BRIDGE and not struct.unpack_from("=H", payload, 8)[0] & NUD_PERMANENT
            return not learned and _stands_on(payload, (VXLAN,))
        case _:
            return kind == RTM_DELNEIGH and _stands_on(payload, (VXLAN,))


def _stands_on(payload: bytes, prefixes: tuple[str, ...]) -> bool:
    """Whether a message of addresses or neighbours is about such a link; one that is gone was told of."""
    try:
        return socket.if_indextoname(struct.unpack_from("=i", payload, 4)[0]).startswith(prefixes)
    except OSError:
        return False


def listener(protocol: int, groups: int) -> socket.socket:
    """A socket that hears these groups (a bit each); reads never wait."""
    flags = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    link = socket.socket(socket.AF_NETLINK, flags, protocol)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    link.bind((0, groups))
    return link


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, flags and body of each message in a datagram (struct nlmsghdr, netlink(7))."""
    at = 0
    while at + HEADER <= len(data):
        length, kind, flags = struct.unpack_from("=IHH", data, at)
        yield kind, flags, data[at + HEADER : at + length]
        at += max(HEADER, length + (-length % 4))
