"""A bell from the kernel: something of the network changed, by us or by others.

Two sockets, rtnetlink and nftables, are read in the event loop and only message types are looked at:
deletions, and links that changed. What exactly happened is found by observing. A full socket buffer (ENOBUFS)
is a ring too.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Iterator

NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
SOL_NETLINK, ADD_MEMBERSHIP, DROP_MEMBERSHIP = 270, 1, 2
RTNLGRP = (1, 3, 5, 7, 8, 9, 11, 19)
"""LINK, NEIGH, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, IPV6_IFADDR, IPV6_ROUTE, IPV6_RULE (linux/rtnetlink.h)."""
NFNLGRP_NFTABLES = 7
RTM_TELLING = frozenset({16, 17, 21, 25, 29, 33})
"""NEWLINK, DELLINK, DELADDR, DELROUTE, DELNEIGH, DELRULE."""
NFT_NEWGEN = 10 << 8 | 15
"""Ends each nft transaction (linux/netfilter/nf_tables.h)."""


class Monitor:
    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._sockets: list[socket.socket] = []
        self._nft: socket.socket | None = None

    def start(self) -> None:
        """Listen from now on; needs a running loop."""
        route_groups = sum(1 << (group - 1) for group in RTNLGRP)
        self._listen(NETLINK_ROUTE, route_groups, RTM_TELLING)
        self._nft = self._listen(NETLINK_NETFILTER, 1 << (NFNLGRP_NFTABLES - 1), frozenset({NFT_NEWGEN}))

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

    def _listen(self, protocol: int, groups: int, telling: frozenset[int]) -> socket.socket:
        flags = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        link = socket.socket(socket.AF_NETLINK, flags, protocol)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        link.bind((0, groups))
        self._sockets.append(link)
        asyncio.get_running_loop().add_reader(link, self._read, link, telling)
        return link

    def _read(self, link: socket.socket, telling: frozenset[int]) -> None:
        try:
            data = link.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            self._ring()
            return
        at = 0
        while at + 16 <= len(data):
            length, kind = struct.unpack_from("=IH", data, at)
            if kind in telling:
                self._ring()
                return
            at += max(16, length + (-length % 4))
