"""nfnetlink packed by hand (linux/netfilter/nfnetlink.h): elements of our sets in bulk, rules' comments, and
connections to forget.

libnftables takes 10 µs to parse an element and looks through everybody's tables before each transaction;
tens of thousands of elements go here in one send, which the kernel takes as a whole or not at all. Functions
build and read messages; the socket is the caller's.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Final

from net.flows import Connection
from net.kernel import rtnl
from net.loadbalance import NOBODY, VERDICTS, ElementChange, Flow
from net.portelements import INTERVALS, datagram_port

NETLINK_NETFILTER, SOL_NETLINK, NETLINK_CAP_ACK = 12, 270, 10
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
NLMSG_ERROR, NLMSG_DONE = 2, 3
REQUEST, ACK, DUMP, DUMP_INTR, CREATE = 0x1, 0x4, 0x300, 0x10, 0x400
NESTED, TYPE = 0x8000, 0x3FFF
NFPROTO_UNSPEC, NFPROTO_INET, AF_INET, AF_INET6 = 0, 1, 2, 10
BATCH_BEGIN, BATCH_END = 0x10, 0x11
CTNETLINK, NFTABLES = 1 << 8, 10 << 8
NEWSETELEM, GETSETELEM, DELSETELEM = NFTABLES | 12, NFTABLES | 13, NFTABLES | 14
GETTABLE, GETCHAIN, GETRULE, GETGEN = NFTABLES | 1, NFTABLES | 4, NFTABLES | 7, NFTABLES | 16
NFPROTO_NETDEV, NFPROTO_BRIDGE, DORMANT, NF_DROP = 5, 7, 1, 0
CT_GET, CT_DELETE = CTNETLINK | 1, CTNETLINK | 2
KEY_END = 10
"""Of an element that is a range of keys."""
GOTO = struct.pack(">i", -4)
UDP = 17
ENDED = (7, 8)
"""TIME_WAIT and CLOSE (linux/netfilter/nf_conntrack_tcp.h)."""
PER_MESSAGE = 400
"""Elements per message: an attribute holds 64 KiB."""
BUFFER: Final = 1 << 26


def connect() -> socket.socket:
    """A socket in the calling thread's namespace; the kernel works within the send."""
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    link.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
    link.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER)
    link.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 22)
    link.settimeout(10.0)
    link.bind((0, 0))
    return link


def generation(link: socket.socket) -> int:
    """Of the namespace's rules: one more after each transaction, whoever's."""
    link.send(_message(GETGEN, REQUEST, NFPROTO_UNSPEC, b""))
    for _, payload in _received(link.recv(1 << 16)):
        return int.from_bytes(attributes(payload)[1], "big")
    raise OSError(errno.EBADMSG, "no generation in the answer")


def change_elements(
    link: socket.socket, table: str, change: ElementChange, family: int = NFPROTO_INET
) -> None:
    """One transaction. Raises OSError; then nothing was changed."""
    messages = [
        _elements(DELSETELEM, family, table, name, part)
        for name, keys in change.gone.items()
        for part in _parts([_element(name, key, b"") for key in keys])
    ]
    messages += [
        _elements(NEWSETELEM, family, table, name, part)
        for name, found in change.new.items()
        for part in _parts(list(_packed(name, found)))
    ]
    edge = struct.pack(">BBH", NFPROTO_UNSPEC, 0, NFTABLES >> 8)
    begin, end = (struct.pack("=IHHII", 20, kind, REQUEST, 0, 0) + edge for kind in (BATCH_BEGIN, BATCH_END))
    link.send(b"".join((begin, *messages, end)))
    answers = 0
    while answers < len(messages):
        for kind, payload in _received(link.recv(1 << 16)):
            answers += 1
            code = -struct.unpack_from("=i", payload)[0] if kind == NLMSG_ERROR else 0
            if code:
                _drain(link)
                raise OSError(code, os.strerror(code))


def list_elements(link: socket.socket, table: str, name: str) -> dict[bytes, bytes]:
    """A set as it stands. Raises OSError: ENOENT without such a set."""
    ask = attr(1, table.encode() + b"\0") + attr(2, name.encode() + b"\0")
    found: dict[bytes, bytes] = {}
    for payload in dump(link, GETSETELEM, NFPROTO_INET, ask):
        for _, element in each(attributes(payload).get(3, b""), 0):
            parts = dict(each(element, 0))
            found[_value(parts[1]) + _value(parts.get(KEY_END, b""))] = _value(parts.get(2, b""))
    return found


def is_dormant(link: socket.socket, family: int, table: str) -> bool:
    """Whether a table is switched off (NFT_TABLE_F_DORMANT); one that is not there is not."""
    found = _table(link, family, table)
    return found is not None and bool(int.from_bytes(found.get(2, b""), "big") & DORMANT)


def has_table(link: socket.socket, family: int, table: str) -> bool:
    return _table(link, family, table) is not None


def _table(link: socket.socket, family: int, table: str) -> Mapping[int, bytes] | None:
    link.send(_message(GETTABLE, REQUEST | ACK, family, attr(1, table.encode() + b"\0")))
    found: Mapping[int, bytes] | None = None
    answered = False
    while not answered:
        for kind, payload in _received(link.recv(1 << 16)):
            answered = answered or kind == NLMSG_ERROR
            if kind != NLMSG_ERROR:
                found = attributes(payload)
    return found


def rule_handles(link: socket.socket, family: int, table: str) -> tuple[tuple[str, int], ...]:
    """Chain and handle of each rule of a table: whatever changes there gives others."""
    dumped = dump(link, GETRULE, family, attr(1, table.encode() + b"\0"))
    rules = map(attributes, dumped)
    return tuple((parts[2].rstrip(b"\0").decode(), int.from_bytes(parts[3], "big")) for parts in rules)


def list_comments(link: socket.socket, table: str) -> dict[str, tuple[str, ...]]:
    """Comments of a table's rules by chain; chains without rules are left out."""
    found: dict[str, tuple[str, ...]] = {}
    for payload in dump(link, GETRULE, NFPROTO_INET, attr(1, table.encode() + b"\0")):
        parts = attributes(payload)
        chain = parts[2].rstrip(b"\0").decode()
        found[chain] = (*found.get(chain, ()), _comment(parts.get(7, b"")))
    return found


def forget_datagrams(link: socket.socket, flows: Iterable[Flow], local: Container[bytes]) -> int:
    """Delete the UDP connections of virtual addresses that go to members they no longer lead to, so that a
    client that keeps its socket gets another with its next packet. `local` are this host's addresses. How
    many there were."""
    gone = {(datagram_port(flow.vip) or flow.vip, flow.member) for flow in flows}
    count = 0
    for family, source, target, length in ((AF_INET, 1, 2, 4), (AF_INET6, 3, 4, 16)):
        if not any(len(member) in (length, len(NOBODY)) for _, member in gone):
            continue
        for payload in dump(link, CT_GET, family, _datagrams()):
            parts = attributes(payload)
            asked, member = _end(parts[1], target), _end(parts[2], source)
            port = _port(parts[1])
            fresh = asked == member and asked in local and (port, NOBODY) in gone
            if fresh or (asked, member) in gone or (asked != member and (port, member) in gone):
                _delete_connection(link, family, parts)
                count += 1
    return count


def forget_connections(
    link: socket.socket, marks: Iterable[bytes], stale: Callable[[Connection], bool], local: Container[bytes]
) -> int:
    """Delete the connections that are `stale`; only those that have some of `marks` in them are looked at.
    `local` are this host's addresses. How many there were."""
    wanted, count = tuple(marks), 0
    for family, source, target in ((AF_INET, 1, 2), (AF_INET6, 3, 4)):
        for payload in dump(link, CT_GET, family, b""):
            if not any(mark in payload for mark in wanted):
                continue
            parts = attributes(payload)
            if any(map(stale, _connections(parts, source, target, local))):
                _delete_connection(link, family, parts)
                count += 1
    return count


def _connections(
    parts: Mapping[int, bytes], source: int, target: int, local: Container[bytes]
) -> Iterator[Connection]:
    """As it began, and the other way round if what began it was translated: whoever it was sent to reaches
    the container by asking the host's port."""
    yield _connection(parts, (1, 2), source, target, local)
    if _end(parts[1], source) != _end(parts[2], target):
        yield _connection(parts, (2, 1), source, target, local)


def _connection(
    parts: Mapping[int, bytes], ways: tuple[int, int], source: int, target: int, local: Container[bytes]
) -> Connection:
    asked, answering = (dict(each(dict(each(parts[way], 0))[2], 0)) for way in ways)
    to = _end(parts[ways[0]], target)
    return Connection(
        protocol=asked[1][0],
        client=_end(parts[ways[0]], source),
        target=to,
        port=int.from_bytes(asked.get(3, b""), "big"),
        member=_end(parts[ways[1]], source),
        member_port=int.from_bytes(answering.get(2, b""), "big"),
        local=to in local,
    )


def translated_to(link: socket.socket) -> set[bytes]:
    """Addresses that answer connections in the place of another, and those others; connections that are being
    closed don't count."""
    found: set[bytes] = set()
    for family, source, target in ((AF_INET, 1, 2), (AF_INET6, 3, 4)):
        for payload in dump(link, CT_GET, family, b""):
            parts = attributes(payload)
            answering, asked = _end(parts[2], source), _end(parts[1], target)
            if answering != asked and _tcp_state(parts.get(4, b"")) not in ENDED:
                found |= {answering, asked}
    return found


def _end(tuple_: bytes, which: int) -> bytes:
    """Source or destination of one direction (CTA_TUPLE_IP)."""
    return dict(each(dict(each(tuple_, 0))[1], 0)).get(which, b"")


def _port(tuple_: bytes) -> int:
    """Destination port of one direction (CTA_TUPLE_PROTO)."""
    return int.from_bytes(dict(each(dict(each(tuple_, 0)).get(2, b""), 0)).get(3, b""), "big")


def _tcp_state(info: bytes) -> int:
    tcp = dict(each(info, 0)).get(1, b"")
    return dict(each(tcp, 0)).get(1, b"\0")[0]


def _datagrams() -> bytes:
    """The dump's filter (CTA_FILTER, Linux 5.8): by protocol. By IPv6 address it finds all others."""
    protocol = 1 << 3
    return _nest(1, _nest(2, attr(1, bytes([UDP])))) + _nest(
        25, attr(1, struct.pack("=I", protocol)), attr(2, bytes(4))
    )


def _delete_connection(link: socket.socket, family: int, parts: Mapping[int, bytes]) -> None:
    body = attr(1 | NESTED, parts[1]) + (attr(12, parts[12]) if 12 in parts else b"")
    link.send(_message(CT_DELETE, REQUEST | ACK, family, body))
    for kind, payload in _received(link.recv(1 << 16)):
        code = -struct.unpack_from("=i", payload)[0] if kind == NLMSG_ERROR else 0
        if code not in (0, errno.ENOENT):
            raise OSError(code, os.strerror(code))


def dump(link: socket.socket, kind: int, family: int, ask: bytes) -> list[bytes]:
    """All that the kernel lists. Raises OSError, CommandFailed."""
    return rtnl.steady(lambda: _dump_once(link, kind, family, ask))


def _dump_once(link: socket.socket, kind: int, family: int, ask: bytes) -> list[bytes]:
    link.send(_message(kind, REQUEST | DUMP, family, ask))
    found: list[bytes] = []
    interrupted = False
    while True:
        data = link.recv(1 << 18)
        at = 0
        while at + 16 <= len(data):
            length, what, flags = struct.unpack_from("=IHH", data, at)
            payload = data[at + 16 : at + length]
            interrupted = interrupted or bool(flags & DUMP_INTR)
            if what in (NLMSG_DONE, NLMSG_ERROR):
                code = -struct.unpack_from("=i", payload)[0] if len(payload) >= 4 else 0
                if code or interrupted:
                    number = code or errno.EINTR
                    raise OSError(number, os.strerror(number))
                return found
            found.append(payload)
            at += length + (-length % 4)


def _drain(link: socket.socket) -> None:
    """The rest of a refused transaction's answers, which are all there already. A socket with a timeout waits
    for it whatever the flags of a call say."""
    patience = link.gettimeout()
    link.settimeout(0)
    try:
        while True:
            link.recv(1 << 16)
    except BlockingIOError:
        return
    finally:
        link.settimeout(patience)


def _packed(name: str, found: Mapping[bytes, bytes]) -> Iterator[bytes]:
    """Elements of one shape differ by their bytes only: the frame around those is made once."""
    if name in INTERVALS:
        yield from (_element(name, key, data) for key, data in found.items())
        return
    verdict = name in VERDICTS
    frames: dict[tuple[int, int | bytes], tuple[bytes, bytes]] = {}
    for key, data in found.items():
        shape = (len(key), data if verdict else len(data))
        if shape not in frames:
            whole = _element(name, key, data)
            frames[shape] = (
                whole[:12],
                whole[12 + len(key) : len(whole) if verdict else len(whole) - len(data)],
            )
        head, tail = frames[shape]
        yield head + key + tail if verdict else head + key + tail + data


def _element(name: str, key: bytes, data: bytes) -> bytes:
    if name in INTERVALS:
        half = len(key) // 2
        return _nest(1, _nest(1, attr(1, key[:half])) + _nest(KEY_END, attr(1, key[half:])))
    inner = _nest(1, attr(1, key))
    if data:
        value = _nest(2, attr(1, GOTO), attr(2, data + b"\0")) if name in VERDICTS else attr(1, data)
        inner += _nest(2, value)
    return _nest(1, inner)


def _elements(kind: int, family: int, table: str, name: str, part: list[bytes]) -> bytes:
    head = attr(1, table.encode() + b"\0") + attr(2, name.encode() + b"\0")
    flags = REQUEST | ACK | (CREATE if kind == NEWSETELEM else 0)
    return _message(kind, flags, family, head + _nest(3, *part))


def _parts(elements: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(elements), PER_MESSAGE):
        yield elements[start : start + PER_MESSAGE]


def _message(kind: int, flags: int, family: int, body: bytes) -> bytes:
    return struct.pack("=IHHIIBBH", 20 + len(body), kind, flags, 1, 0, family, 0, 0) + body


def attr(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def _nest(kind: int, *parts: bytes) -> bytes:
    return attr(kind | NESTED, b"".join(parts))


def _received(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, payload) of the messages of one datagram."""
    at = 0
    while at + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, at)
        yield kind, data[at + 16 : at + length]
        at += max(16, length + (-length % 4))


def attributes(payload: bytes) -> dict[int, bytes]:
    """Of a message."""
    return dict(each(payload, 4))


def each(data: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """Attributes from there on, nested ones as they are."""
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            return
        yield kind & TYPE, data[at + 4 : at + length]
        at += length + (-length % 4)


def _value(nested: bytes) -> bytes:
    """Of NFTA_DATA_VALUE, or the chain of NFTA_DATA_VERDICT."""
    for kind, data in each(nested, 0):
        if kind == 1:
            return data
        return dict(each(data, 0)).get(2, b"").rstrip(b"\0")
    return b""


def _comment(userdata: bytes) -> str:
    """libnftnl's rule userdata: type, length, value; type 0 is the comment."""
    at = 0
    while at + 2 <= len(userdata):
        kind, length = userdata[at], userdata[at + 1]
        if kind == 0:
            return userdata[at + 2 : at + 2 + length].rstrip(b"\0").decode(errors="replace")
        at += 2 + length
    return ""
