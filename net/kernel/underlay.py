"""The host's own links and addresses: which carries an address, and a bell for when they change.

What is ours never rings. Only who changed is looked at, not how: the host is measured again.
"""

from __future__ import annotations

import asyncio
import fcntl
import ipaddress
import socket
import struct
import sys
from collections.abc import Callable, Iterable

from model.spec import Struct
from model.status import Nic
from net.kernel import rtnl, upper
from net.kernel.monitor import NETLINK_ROUTE, listener, messages
from net.kernel.observed import DUMPS
from net.naming import PREFIXES, PRIVATE, SITE_BRIDGE

RTNLGRP = (1, 5, 9)
"""LINK, IPV4_IFADDR, IPV6_IFADDR (linux/rtnetlink.h)."""
LINKS, ADDRESSES = frozenset({16, 17}), frozenset({20, 21})
"""RTM_NEWLINK, RTM_DELLINK; RTM_NEWADDR, RTM_DELADDR."""
RTM_GETADDR, IFA_ADDRESS, IFA_LOCAL = 22, 1, 2
IFLA_IFNAME, LINK_HEADER, ADDRESS_HEADER = 3, 16, 8
SIOCGIFHWADDR = 0x8927
SIOCGIFMTU = 0x8921
MOST_ADDRESSES, MOST_NICS = 64, 64
"""That are told."""
TRANSIENT = ("veth", "vnet", "tap", "cali")
"""Names that Docker, libvirt, QEMU and Calico give such links."""
ARPHRD_ETHER, IFF_UP, IFLA_MTU, IFLA_MASTER = 1, 0x1, 4, 10


class UnderlayMonitor:
    """Listens between `start` and `close`; needs a running loop."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._socket: socket.socket | None = None

    def start(self) -> None:
        self._socket = listener(NETLINK_ROUTE, sum(1 << (group - 1) for group in RTNLGRP))
        asyncio.get_running_loop().add_reader(self._socket, self._read, self._socket)

    def close(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _read(self, link: socket.socket) -> None:
        try:
            data = link.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:  # the buffer was full: something was missed
            self._ring()
            return
        if any(foreign(kind, body) for kind, _, body in messages(data)):
            self._ring()


def foreign(kind: int, body: bytes) -> bool:
    """Whether a message is about a link, or an address on one, that is not ours."""
    if kind in LINKS:
        return not _link_name(body).startswith(PRIVATE)
    if kind in ADDRESSES:
        (index,) = struct.unpack_from("=I", body, 4)
        try:
            return not socket.if_indextoname(index).startswith(PRIVATE)
        except OSError:  # gone already, its link told
            return False
    return False


class Carrier(Struct):
    """The link that has a host's address."""

    name: str
    mtu: int
    ranges: tuple[str, ...] = ()
    """That its addresses are in: reached on it without a router."""
    link_local: str = ""
    """IPv6 (RFC 4291, 2.5.6); empty where it has none."""


def carrier_of(address: str) -> Carrier | None:
    """Of the calling thread's network namespace; None where no link has `address`. Raises OSError."""
    wanted = ipaddress.ip_address(address).packed
    with rtnl.connect() as link:
        entries = rtnl.dump(link, RTM_GETADDR, bytes(ADDRESS_HEADER))
    holders = [body for body in entries if _own(body) == wanted]
    if not holders:
        return None
    (index,) = struct.unpack_from("=I", holders[0], 4)
    name = socket.if_indextoname(index)
    ranges, link_local = on_link(body for body in entries if struct.unpack_from("=I", body, 4)[0] == index)
    return Carrier(name=name, mtu=_mtu(name), ranges=ranges, link_local=link_local)


def on_link(entries: Iterable[bytes]) -> tuple[tuple[str, ...], str]:
    """Of one link's address messages (struct ifaddrmsg, rtnetlink(7)): the ranges, and the IPv6 address that
    is good there only. Pure."""
    ranges, link_local = dict[str, None](), ""
    for body in entries:
        raw = _attribute(body, ADDRESS_HEADER, IFA_ADDRESS)
        if len(raw) not in (4, 16):
            continue
        address = ipaddress.ip_address(raw)
        if address.version == 6 and address.is_link_local:
            link_local = link_local or str(address)
        elif not address.is_loopback:
            ranges[str(ipaddress.ip_network((raw, body[1]), strict=False))] = None
    return tuple(sorted(ranges)), link_local


def _own(body: bytes) -> bytes:
    return _attribute(body, ADDRESS_HEADER, IFA_LOCAL) or _attribute(body, ADDRESS_HEADER, IFA_ADDRESS)


def own_addresses() -> tuple[str, ...]:
    """All of this host, in the calling thread's network namespace, but for those on links of ours and those
    that are good on one link or on the host alone. Raises OSError."""
    with rtnl.connect() as link:
        entries = rtnl.dump(link, RTM_GETADDR, bytes(ADDRESS_HEADER))
    found = set[str]()
    for body in entries:
        raw = _own(body)
        address = ipaddress.ip_address(raw) if len(raw) in (4, 16) else None
        if address is not None and not (address.is_loopback or address.is_link_local):
            (index,) = struct.unpack_from("=I", body, 4)
            if not _is_ours(index):
                found.add(str(address))
    return tuple(sorted(found))[:MOST_ADDRESSES]


def nics() -> tuple[Nic, ...]:
    """Links of the calling thread's network namespace that could carry networks: Ethernet, not ours, nobody's
    port but of a bridge that we made for it, none that come and go with somebody's containers or virtual
    machines. Raises OSError."""
    with rtnl.connect() as link:
        messages = rtnl.dump(link, *DUMPS["links"])
    found = []
    ours = {struct.unpack_from("=i", m, 4)[0] for m in messages if _link_name(m).startswith(SITE_BRIDGE)}
    for data in messages:
        _, kind, _, flags = struct.unpack_from("=BxHiI", data)
        name = _link_name(data)
        passing = name.startswith((*PREFIXES, *TRANSIENT))
        master = int.from_bytes(_attribute(data, LINK_HEADER, IFLA_MASTER), sys.byteorder)
        if kind != ARPHRD_ETHER or passing or (master and master not in ours):
            continue
        (mtu,) = struct.unpack("=I", _attribute(data, LINK_HEADER, IFLA_MTU))
        found.append(Nic(name=name, mtu=mtu, up=bool(flags & IFF_UP)))
    return tuple(sorted(found, key=lambda nic: nic.name))[:MOST_NICS]


def link_kinds() -> tuple[str, ...]:
    """Of the kinds that stand on another link, those that this kernel can make. Raises OSError."""
    with rtnl.connect() as link:
        return tuple(kind for kind in upper.KINDS if upper.has_kind(link, kind))


def _is_ours(index: int) -> bool:
    try:
        return socket.if_indextoname(index).startswith(PRIVATE)
    except OSError:  # gone meanwhile
        return True


def mac_of(name: str) -> str:
    """Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        reply = fcntl.ioctl(probe, SIOCGIFHWADDR, struct.pack("256s", name.encode()))
    return reply[18:24].hex(":")


def _mtu(name: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        reply = fcntl.ioctl(probe, SIOCGIFMTU, struct.pack("256s", name.encode()))
    return int(struct.unpack("i", reply[16:20])[0])


def _link_name(body: bytes) -> str:
    return _attribute(body, LINK_HEADER, IFLA_IFNAME).rstrip(b"\0").decode(errors="replace")


def _attribute(body: bytes, at: int, wanted: int) -> bytes:
    """Of a route message with a header of so many bytes (struct rtattr, rtnetlink(7)); empty if absent."""
    while at + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, at)
        if kind == wanted:
            return body[at + 4 : at + length]
        at += max(4, length + (-length % 4))
    return b""
