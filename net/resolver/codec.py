"""DNS messages (RFC 1035, EDNS: RFC 6891): reading queries, walking foreign answers, writing our own. Pure.

The bytes come from an enemy. What is read is bounded: a query has one question and at most `MOST_QUERY`
bytes, a walk visits each byte once. Compression pointers are never followed, only stepped over, so that no
loop of them can hold anybody; in a query's own question they are refused. Nothing raises but `Malformed`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

A, PTR, AAAA, SRV, OPT, ANY = 1, 12, 28, 33, 41, 255
IN, ANY_CLASS = 1, 255
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
_OPCODE, _RCODE = 0x7800, 0x000F
DO = 0x8000
"""In the TTL of OPT."""
HEADER = 12
MOST_QUERY = 4096
"""Bytes of a query: a name, EDNS and its options need far less."""
LEAST_UDP, MOST_UDP = 512, 1232
"""What a client takes without EDNS, and what is never fragmented (RFC 9715)."""
_MOST_EXTRA, _MOST_TAIL = 8, 64
_HEADER, _RECORD = struct.Struct("!HHHHHH"), struct.Struct("!HHIH")
_POINTER = 0xC0


class Malformed(Exception):
    """The bytes are no DNS message."""


class Query(NamedTuple):
    """One question. `name` is lower-case without its final dot; `end` is where the question ends."""

    data: bytes
    name: str
    type: int
    class_: int
    end: int
    opcode: int
    edns: int
    """The version of EDNS; -1 without."""
    size: int
    """Bytes of a UDP answer that the client takes."""
    do: bool


class Record(NamedTuple):
    """Where a record stands in a message."""

    start: int
    type: int
    ttl_at: int
    ttl: int
    data_at: int
    end: int
    section: int
    """1 answer, 2 authority, 3 additional."""


class Walk(NamedTuple):
    flags: int
    question_end: int
    records: tuple[Record, ...]

    @property
    def rcode(self) -> int:
        return self.flags & _RCODE


def read_query(data: bytes) -> Query | None:
    """None for what must not be answered: a response (two servers would talk for ever) or less than a header.
    Raises Malformed for what deserves FORMERR."""
    if len(data) < HEADER:
        return None
    _, flags, questions, answers, authorities, extras = _HEADER.unpack_from(data)
    if flags & QR:
        return None
    if len(data) > MOST_QUERY:
        raise Malformed(f"a query of {len(data)} bytes")
    opcode = (flags & _OPCODE) >> 11
    if opcode:
        return Query(data, "", 0, 0, HEADER, opcode, -1, LEAST_UDP, False)
    if questions != 1 or answers or authorities or extras > _MOST_EXTRA:
        raise Malformed("not one question")
    name, at = _question_name(data)
    if at + 4 > len(data):
        raise Malformed("cut off")
    type_, class_ = struct.unpack_from("!HH", data, at)
    end = at + 4
    edns, size, do, at = -1, LEAST_UDP, False, end
    for _ in range(extras):
        record = _record(data, at, 3)
        if record.type == OPT:
            if edns >= 0 or data[at] != 0:
                raise Malformed("two OPT records, or one with a name")
            edns, do = record.ttl >> 16 & 0xFF, bool(record.ttl & DO)
            size = max(LEAST_UDP, int.from_bytes(data[record.ttl_at - 2 : record.ttl_at], "big"))
        at = record.end
    return Query(data, name, type_, class_, end, 0, edns, size, do)


def _question_name(data: bytes) -> tuple[str, int]:
    """A name without compression, lower-case, and the offset behind it. A label with a dot or a byte over 127
    can be no name of ours and is read as an escape."""
    labels, at, length = [], HEADER, len(data)
    while True:
        if at >= length:
            raise Malformed("cut off")
        size = data[at]
        at += 1
        if size == 0:
            break
        if size > 63:
            raise Malformed("compression in a question")
        label = data[at : at + size]
        at += size
        labels.append(label if label.isascii() and b"." not in label else b"\\" + label.hex().encode())
    if at - HEADER > 255:
        raise Malformed("a name of more than 255 bytes")
    return b".".join(labels).lower().decode("ascii"), at


def walk(data: bytes) -> Walk:
    """All records of a response. Raises Malformed."""
    if len(data) < HEADER:
        raise Malformed("less than a header")
    _, flags, questions, *counts = _HEADER.unpack_from(data)
    at = HEADER
    for _ in range(questions):
        at = _skip_name(data, at) + 4
        if at > len(data):
            raise Malformed("cut off")
    question_end, records = at, []
    for section, count in enumerate(counts, 1):
        for _ in range(count):
            record = _record(data, at, section)
            records.append(record)
            at = record.end
    return Walk(flags, question_end, tuple(records))


def _record(data: bytes, at: int, section: int) -> Record:
    start, at = at, _skip_name(data, at)
    if at + 10 > len(data):
        raise Malformed("cut off")
    type_, _, ttl, size = _RECORD.unpack_from(data, at)
    end = at + 10 + size
    if end > len(data):
        raise Malformed("cut off")
    return Record(start, type_, at + 4, ttl, at + 10, end, section)


def _skip_name(data: bytes, at: int) -> int:
    """A pointer ends a name, so there is no need to follow it. Each record takes 11 bytes at least, which
    bounds the walk whatever the counts say."""
    while True:
        if at >= len(data):
            raise Malformed("cut off")
        size = data[at]
        if size == 0:
            return at + 1
        if size >= _POINTER:
            return at + 2
        if size > 63:
            raise Malformed("an unknown kind of label")
        at += 1 + size


def encode_name(name: str) -> bytes:
    """Of a name that `state.fits`."""
    return b"".join(bytes([len(label)]) + label.encode("ascii") for label in name.split(".")) + b"\0"


def record(owner: bytes, type_: int, ttl: int, rdata: bytes) -> bytes:
    return owner + _RECORD.pack(type_, IN, ttl, len(rdata)) + rdata


def opt(rcode: int = 0, *, do: bool = False) -> bytes:
    """Our OPT record; it holds the upper bits of a response code over 15."""
    ttl = rcode >> 4 << 24 | (DO if do else 0)
    return b"\0" + _RECORD.pack(OPT, MOST_UDP, ttl, 0)


def response(
    query: Query, rcode: int, *, flags: int = 0, answers: Iterable[bytes] = (), extras: Iterable[bytes] = ()
) -> bytes:
    """An answer with the question as it was asked, upper and lower case kept; none where none was read."""
    sections = list(answers), list(extras)
    tail = opt(rcode, do=query.do) if query.edns >= 0 else b""
    asked = int.from_bytes(query.data[2:4], "big")
    flags |= QR | RA | asked & (_OPCODE | RD | CD) | rcode & _RCODE
    counts = (len(sections[0]), 0, len(sections[1]) + bool(tail))
    head = query.data[:2] + struct.pack("!HHHHH", flags, query.end > HEADER, *counts)
    return b"".join((head, query.data[HEADER : query.end], *sections[0], *sections[1], tail))


def error(data: bytes, rcode: int) -> bytes:
    """The answer to what can't be read: its id and opcode, no question."""
    asked = int.from_bytes(data[2:4], "big")
    return data[:2] + struct.pack("!HHHHH", QR | RA | asked & (_OPCODE | RD) | rcode, 0, 0, 0, 0)


def truncated(reply: bytes, limit: int) -> bytes:
    """A reply that fits `limit` bytes, with as many answers as do: clients that can't ask by TCP live on them
    (musl up to 1.2.3). Raises Malformed."""
    if len(reply) <= limit:
        return reply
    seen = walk(reply)
    options = [r for r in seen.records if r.type == OPT and r.section == 3]
    tail = reply[options[0].start : options[0].end] if options else b""
    tail = tail if len(tail) <= _MOST_TAIL else b""
    cut, kept = seen.question_end, 0
    for r in seen.records:
        if r.section != 1 or r.end + len(tail) > limit:
            break
        cut, kept = r.end, kept + 1
    head = reply[:2] + struct.pack("!HHHHH", seen.flags | TC, _questions(reply), kept, 0, bool(tail))
    return head + reply[HEADER:cut] + tail


def _questions(data: bytes) -> int:
    return int.from_bytes(data[4:6], "big")
