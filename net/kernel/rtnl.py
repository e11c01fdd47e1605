"""rtnetlink messages packed by hand (rtnetlink(7)): what is sent in bulk or on the way of a starting
container.

A thousand FDB entries go in a few sends instead of a thousand round trips. Everything else goes through
pyroute2 (`net.kernel.netlink`). Functions build messages; `transact` sends them and gathers the answers.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Callable, Sequence
from typing import TypeVar

from model.errors import CommandFailed
from net.kernel.observed import IPV6_METRIC
from net.state import PROTOCOL, PolicyRule

T = TypeVar("T")

NETLINK_ROUTE, SOL_NETLINK, NETLINK_CAP_ACK = 0, 270, 10
NLMSG_ERROR, NLMSG_DONE = 2, 3
DUMP, DUMP_INTR = 0x300, 0x10
RTM_NEWLINK, RTM_NEWADDR, RTM_DELADDR, RTM_NEWROUTE, RTM_DELROUTE = 16, 20, 21, 24, 25
RTM_NEWNEIGH, RTM_DELNEIGH = 28, 29
RTM_NEWRULE, RTM_DELRULE = 32, 33
REQUEST, ACK, REPLACE, EXCL, CREATE, APPEND = 0x1, 0x4, 0x100, 0x200, 0x400, 0x800
AF_BRIDGE = 7
NUD_STALE, NUD_NOARP, NUD_PERMANENT = 0x04, 0x40, 0x80
NTF_SELF = 0x02
RTN_UNICAST, RTN_UNREACHABLE = 1, 7
SCOPE_UNIVERSE, SCOPE_LINK, SCOPE_NOWHERE = 0, 253, 255
TABLE_MAIN, PROTO_STATIC = 254, 4
RTA_PRIORITY, RTA_TABLE, FR_ACT_TO_TBL = 6, 15, 1
FRA_SRC, FRA_PRIORITY, FRA_FWMARK, FRA_TABLE, FRA_FWMASK, FRA_PROTOCOL = 2, 6, 10, 15, 16, 21
RTNH_F_ONLINK = 4
IFA_F_NODAD = 0x02
IFF_UP = 0x1
RTM_SETLINK = 19
IFLA_MTU, IFLA_PROTINFO, IFLA_IFALIAS, IFLA_BRPORT_MODE, NLA_F_NESTED = 4, 12, 20, 4, 0x8000
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_LINKINFO, IFLA_NET_NS_FD = 1, 3, 4, 10, 18, 28
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
CHUNK = 200
"""Messages per send: their answers fit the default receive buffer."""
TRIES = 20
"""How often a list is asked for anew when it changed while it was written."""


def connect() -> socket.socket:
    """A socket in the calling thread's namespace; blocking, since the kernel answers within the send."""
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
    link.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    link.settimeout(10.0)
    link.bind((0, 0))
    return link


def transact(link: socket.socket, messages: Sequence[bytes]) -> list[int]:
    """Send all; per message 0 or the errno that the kernel answered."""
    results: list[int] = []
    for start in range(0, len(messages), CHUNK):
        chunk = messages[start : start + CHUNK]
        numbered = [m[:8] + struct.pack("=I", i) + m[12:] for i, m in enumerate(chunk, 1)]
        link.send(b"".join(numbered))
        answers: dict[int, int] = {}
        while len(answers) < len(chunk):
            answers.update(_answers(link.recv(1 << 16)))
        results += [answers[i] for i in range(1, len(chunk) + 1)]
    return results


def steady(call: Callable[[], T]) -> T:
    """The call's result once nothing changed meanwhile: if something did, a dump ends with EINTR. Raises
    CommandFailed when something always does."""
    for _ in range(TRIES):
        try:
            return call()
        except InterruptedError:
            continue
    raise CommandFailed(f"the network changed {TRIES} times while it was listed")


def dump(link: socket.socket, kind: int, body: bytes) -> list[bytes]:
    """Payloads of all messages that answer a dump request, `steady`. Raises OSError, CommandFailed."""
    return steady(lambda: _dump(link, kind, body))


def _dump(link: socket.socket, kind: int, body: bytes) -> list[bytes]:
    link.send(struct.pack("=IHHII", 16 + len(body), kind, REQUEST | DUMP, 1, 0) + body)
    found: list[bytes] = []
    interrupted = False
    while True:
        data = link.recv(1 << 18)
        at = 0
        while at + 16 <= len(data):
            length, what, flags = struct.unpack_from("=IHH", data, at)
            interrupted = interrupted or bool(flags & DUMP_INTR)
            if what == NLMSG_DONE:
                if interrupted:
                    raise InterruptedError(errno.EINTR, "the network changed while it was listed")
                return found
            if what == NLMSG_ERROR:
                number = -struct.unpack_from("=i", data, at + 16)[0]
                raise OSError(number, os.strerror(number))
            found.append(data[at + 16 : at + length])
            at += length + (-length % 4)


def ask(link: socket.socket, kind: int, body: bytes) -> bytes:
    """The payload of the one message that answers. Raises OSError."""
    link.send(struct.pack("=IHHII", 16 + len(body), kind, REQUEST, 1, 0) + body)
    data = link.recv(1 << 16)
    length, what = struct.unpack_from("=IH", data)
    if what == NLMSG_ERROR:
        number = -struct.unpack_from("=i", data, 16)[0]
        raise OSError(number, os.strerror(number))
    return data[16:length]


def check(results: Sequence[int], *, accept: Sequence[int] = (0, errno.EEXIST)) -> None:
    """Raises OSError for the first answer that isn't among `accept`."""
    for number in results:
        if number not in accept:
            raise OSError(number, os.strerror(number))


def fdb(index: int, mac: str, remote: str, *, add: bool) -> bytes:
    """A VXLAN device's own entry. Several remotes for the all-zero MAC are appended to each other."""
    head = struct.pack("=BxxxiHBB", AF_BRIDGE, index, NUD_PERMANENT | NUD_NOARP, NTF_SELF, 0)
    body = head + attr(2, _mac(mac)) + attr(1, _ip(remote))
    if not add:
        return message(RTM_DELNEIGH, 0, body)
    flags = CREATE | APPEND if not any(_mac(mac)) else CREATE | REPLACE
    return message(RTM_NEWNEIGH, flags, body)


def neighbour(index: int, address: str, mac: str, *, state: int = NUD_PERMANENT) -> bytes:
    head = struct.pack("=BxxxiHBB", _family(address), index, state, 0, 0)
    return message(RTM_NEWNEIGH, CREATE | REPLACE, head + attr(1, _ip(address)) + attr(2, _mac(mac)))


def no_neighbour(index: int, address: str) -> bytes:
    head = struct.pack("=BxxxiHBB", _family(address), index, 0, 0, 0)
    return message(RTM_DELNEIGH, 0, head + attr(1, _ip(address)))


def link_up(index: int) -> bytes:
    return message(RTM_NEWLINK, 0, struct.pack("=BxHiII", 0, 0, index, IFF_UP, IFF_UP))


def link_alias(index: int, alias: str) -> bytes:
    head = struct.pack("=BxHiII", 0, 0, index, 0, 0)
    return message(RTM_NEWLINK, 0, head + attr(IFLA_IFALIAS, alias.encode()))


def link_name(index: int, name: str) -> bytes:
    head = struct.pack("=BxHiII", 0, 0, index, 0, 0)
    return message(RTM_NEWLINK, 0, head + attr(IFLA_IFNAME, name.encode() + b"\0"))


def link_mtu(index: int, mtu: int) -> bytes:
    head = struct.pack("=BxHiII", 0, 0, index, 0, 0)
    return message(RTM_NEWLINK, 0, head + attr(IFLA_MTU, struct.pack("=I", mtu)))


def veth(name: str, mtu: int, master: int, *, peer: str, mac: str, namespace: int) -> bytes:
    """A pair whose end here is up and a port of the bridge `master`, and whose other end, with this MAC, is
    in the namespace of that descriptor."""
    width = struct.pack("=I", mtu)
    there = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + attr(IFLA_IFNAME, peer.encode() + b"\0")
    there += attr(IFLA_MTU, width) + attr(IFLA_ADDRESS, _mac(mac))
    there += attr(IFLA_NET_NS_FD, struct.pack("=I", namespace))
    pair = attr(IFLA_INFO_DATA, attr(VETH_INFO_PEER, there))
    kind = attr(IFLA_LINKINFO, attr(IFLA_INFO_KIND, b"veth\0") + pair)
    here = struct.pack("=BxHiII", 0, 0, 0, IFF_UP, IFF_UP) + attr(IFLA_IFNAME, name.encode() + b"\0")
    here += attr(IFLA_MTU, width) + attr(IFLA_MASTER, struct.pack("=I", master))
    return message(RTM_NEWLINK, CREATE | EXCL, here + kind)


def port_hairpin(index: int) -> bytes:
    """A bridge port may send a frame back out of itself."""
    head = struct.pack("=BxHiII", AF_BRIDGE, 0, index, 0, 0)
    return message(RTM_SETLINK, 0, head + attr(IFLA_PROTINFO | NLA_F_NESTED, attr(IFLA_BRPORT_MODE, b"\1")))


def address(index: int, cidr: str) -> bytes:
    """IPv6 addresses come without duplicate address detection: the allocator knows better, and sooner."""
    text, _, prefix = cidr.partition("/")
    raw = _ip(text)
    flags = IFA_F_NODAD if ":" in text else 0
    head = struct.pack("=BBBBi", _family(text), int(prefix), flags, SCOPE_UNIVERSE, index)
    return message(RTM_NEWADDR, CREATE | REPLACE, head + attr(2, raw) + attr(1, raw))


def no_address(index: int, cidr: str) -> bytes:
    text, _, prefix = cidr.partition("/")
    head = struct.pack("=BBBBi", _family(text), int(prefix), 0, 0, index)
    return message(RTM_DELADDR, 0, head + attr(2, _ip(text)) + attr(1, _ip(text)))


def route(
    destination: str,
    index: int,
    via: str,
    source: str = "",
    *,
    protocol: int = PROTOCOL,
    table: int = 0,
    metric: int = 0,
    mode: int = EXCL,
) -> bytes:
    """A new route, of the main table if none is named; `mode` REPLACE changes the one to the same
    destination."""
    body = _route(destination, index, via, source, protocol, table)
    if metric:
        body += attr(RTA_PRIORITY, struct.pack("=I", metric))
    return message(RTM_NEWROUTE, CREATE | mode, body)


def no_route(destination: str, index: int, *, table: int = 0, metric: int = 0) -> bytes:
    """Only ours: the kernel matches the protocol too. Whatever its scope, which a next hop decides. Without a
    metric the first one would go, and of IPv6 there may be one ahead of it."""
    body = _route(destination, index, "", "", PROTOCOL, table, scope=SCOPE_NOWHERE)
    metric = metric or (IPV6_METRIC if ":" in destination else 0)
    return message(RTM_DELROUTE, 0, body + (attr(RTA_PRIORITY, struct.pack("=I", metric)) if metric else b""))


def policy_rule(rule: PolicyRule, *, add: bool) -> bytes:
    """One that exists already is refused with EEXIST."""
    family = socket.AF_INET6 if rule.version == 6 else socket.AF_INET
    body = _rule(family, 0, rule.table, rule.priority)
    body += attr(FRA_FWMARK, struct.pack("=I", rule.mark)) + attr(FRA_FWMASK, struct.pack("=I", rule.mask))
    body += attr(FRA_PROTOCOL, bytes([PROTOCOL]))
    return message(RTM_NEWRULE, CREATE | EXCL, body) if add else message(RTM_DELRULE, 0, body)


def source_rule(address: str, table: int, priority: int) -> bytes:
    """What has this address as its source is routed by `table`."""
    raw = _ip(address)
    body = _rule(_family(address), len(raw) * 8, table, priority) + attr(FRA_SRC, raw)
    return message(RTM_NEWRULE, CREATE | EXCL, body)


def _rule(family: int, source_length: int, table: int, priority: int) -> bytes:
    head = struct.pack("=BBBBBBBBI", family, 0, source_length, 0, 0, 0, 0, FR_ACT_TO_TBL, 0)
    return head + attr(FRA_PRIORITY, struct.pack("=I", priority)) + attr(FRA_TABLE, struct.pack("=I", table))


def _route(
    destination: str,
    index: int,
    via: str,
    source: str,
    protocol: int,
    table: int,
    *,
    scope: int | None = None,
) -> bytes:
    text, _, prefix = destination.partition("/")
    family = _family(text)
    kind = RTN_UNICAST if index else RTN_UNREACHABLE
    if scope is None:
        scope = SCOPE_LINK if index and not via and family == socket.AF_INET else SCOPE_UNIVERSE
    flags = RTNH_F_ONLINK if via else 0
    short = 0 if table else TABLE_MAIN
    body = struct.pack("=BBBBBBBBI", family, int(prefix), 0, 0, short, protocol, scope, kind, flags)
    if table:
        body += attr(RTA_TABLE, struct.pack("=I", table))
    if int(prefix):
        body += attr(1, _ip(text))
    if index:
        body += attr(4, struct.pack("=i", index))
    if via and _family(via) == family:
        body += attr(5, _ip(via))
    elif via:
        body += attr(18, struct.pack("=H", _family(via)) + _ip(via))
    if source:
        body += attr(7, _ip(source))
    return body


def message(kind: int, flags: int, body: bytes) -> bytes:
    """A request that wants an answer; numbered when it is sent."""
    return struct.pack("=IHHII", 16 + len(body), kind, REQUEST | ACK | flags, 0, 0) + body


def attr(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def _answers(data: bytes) -> dict[int, int]:
    found: dict[int, int] = {}
    while len(data) >= 20:
        length, kind, _, sequence, _, code = struct.unpack_from("=IHHIIi", data)
        if kind == NLMSG_ERROR:
            found[sequence] = -code
        data = data[length + (-length % 4) :]
    return found


def _family(text: str) -> int:
    return socket.AF_INET6 if ":" in text else socket.AF_INET


def _ip(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
