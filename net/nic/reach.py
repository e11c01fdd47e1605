"""Who answers by a link: gateways (ARP, RFC 826; neighbour solicitation, RFC 4861) and controllers (TCP).

Blocking, for a process that does nothing else. Invariant: only an answer to what was asked counts, and an
answer of this host's own memory does not.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from model.spec import Struct

ETH_P_ARP, ARP_REQUEST, ARP_REPLY = 0x0806, 1, 2
SOLICITATION, ADVERTISEMENT, SOURCE_MAC = 135, 136, 1
SOLICITED_NODE = bytes.fromhex("ff0200000000000000000001ff")
PATIENCE = 0.5
"""Seconds that one question waits; ARP and TCP try again after a second or more."""


class Gateway(Struct):
    family: int
    address: bytes

    def __str__(self) -> str:
        return f"the gateway {socket.inet_ntop(self.family, self.address)}"


class Controller(Struct):
    where: str
    """HOST:PORT."""

    def __str__(self) -> str:
        return f"the controller {self.where}"


Target = Gateway | Controller


def answering(targets: Iterable[Target], link: str, source: bytes, deadline: float) -> set[Target]:
    """Those that answer before `deadline` (seconds from now); each is asked once at least, side by side, so
    that silent ones take no time of the others. `source` is the host's own IPv4 address there, or empty."""
    left, found, end = list(targets), set[Target](), time.monotonic() + deadline
    with ThreadPoolExecutor(max(1, len(left))) as pool:
        while left:
            heard = pool.map(lambda target: _answers(target, link, source), left)
            found.update(target for target, answered in zip(left, heard, strict=True) if answered)
            left = [target for target in left if target not in found]
            if time.monotonic() > end:
                break
            if left:
                time.sleep(0.05)
    return found


def _answers(target: Target, link: str, source: bytes) -> bool:
    with contextlib.suppress(OSError):  # no way there, refused, in time: no answer
        return _asked(target, link, source)
    return False


def _asked(target: Target, link: str, source: bytes) -> bool:
    match target:
        case Gateway(family=socket.AF_INET, address=address):
            return _arp(link, source, address)
        case Gateway(address=address):
            return _solicit(link, address)
        case Controller(where=where):
            host, _, port = where.rpartition(":")
            with socket.create_connection((host.strip("[]"), int(port)), timeout=2 * PATIENCE):
                return True


def _arp(link: str, source: bytes, address: bytes) -> bool:
    flags = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_PACKET, flags, socket.htons(ETH_P_ARP)) as probe:
        probe.bind((link, ETH_P_ARP))
        mac = probe.getsockname()[4]
        words = struct.pack("!HHBBH", 1, 0x0800, 6, 4, ARP_REQUEST)
        words += mac + (source or bytes(4)) + bytes(6) + address
        probe.sendto(words, (link, ETH_P_ARP, 0, 1, b"\xff" * 6))
        return _heard(probe, lambda data: data[6:8] == b"\0\2" and data[14:18] == address)


def _solicit(link: str, address: bytes) -> bool:
    flags = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_INET6, flags, socket.IPPROTO_ICMPV6) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode())
        probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        index = socket.if_nametoindex(link)
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as own:
            own.bind((link, 0))
            mac = own.getsockname()[4]
        words = struct.pack("!BBHI", SOLICITATION, 0, 0, 0) + address + bytes((SOURCE_MAC, 1)) + mac
        group = socket.inet_ntop(socket.AF_INET6, SOLICITED_NODE + address[13:])
        probe.sendto(words, (group, 0, 0, index))
        return _heard(probe, lambda data: data[0] == ADVERTISEMENT and data[8:24] == address)


def _heard(probe: socket.socket, is_answer: object) -> bool:
    assert callable(is_answer)
    end = time.monotonic() + PATIENCE
    while (left := end - time.monotonic()) > 0:
        if not select.select([probe], [], [], left)[0]:
            return False
        data = probe.recv(2048)
        if len(data) >= 24 and is_answer(data):
            return True
    return False
