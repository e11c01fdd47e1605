"""The PROXY protocol's header, versions 1 and 2, to bytes and back. Pure.

The source that rules is HAProxy's doc/proxy-protocol.txt (section 2); numbers below are its own. Invariant:
what `encode` makes, `decode` reads as the same value and as many bytes; `decode` takes bytes from an enemy,
reads no more than they say, and accepts nothing that the specification forbids.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from functools import lru_cache
from typing import Literal

from model.errors import InvalidInput
from model.spec import Struct

Version = Literal["v1", "v2"]

MOST_V1 = 107
"""Bytes of a line of version 1 at most, its CRLF included (2.1)."""
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
HEAD = len(SIGNATURE) + 4
"""Of version 2: signature, version and command, family and protocol, length of what follows (2.2)."""
_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21
_ADDRESSES = {_TCP4: (4, struct.Struct("!4s4sHH")), _TCP6: (6, struct.Struct("!16s16sHH"))}
_PORT = re.compile(r"0|[1-9][0-9]{0,4}")


class Header(Struct):
    """Who asked whom. Both addresses are of one family. `source` empty: unknown, or the proxy asks for itself
    (LOCAL); the receiver then takes the connection's own addresses."""

    source: str = ""
    source_port: int = 0
    destination: str = ""
    destination_port: int = 0


UNKNOWN = Header()


def encode(header: Header, version: Version) -> bytes:
    """Raises InvalidInput for addresses of two families or ports that are none."""
    if not header.source:
        return b"PROXY UNKNOWN\r\n" if version == "v1" else SIGNATURE + bytes((_LOCAL, 0, 0, 0))
    source, destination = _address(header.source), _address(header.destination)
    ports = header.source_port, header.destination_port
    if source.version != destination.version or not all(0 <= port <= 0xFFFF for port in ports):
        raise InvalidInput(f"no PROXY header leads from {header.source} to {header.destination}: {ports}")
    if version == "v1":
        words = f"PROXY TCP{source.version} {source} {destination} {ports[0]} {ports[1]}\r\n"
        return words.encode("ascii")
    family = _TCP4 if source.version == 4 else _TCP6
    body = _ADDRESSES[family][1].pack(source.packed, destination.packed, *ports)
    return SIGNATURE + bytes((_PROXY, family)) + struct.pack("!H", len(body)) + body


def decode(data: bytes) -> tuple[Header, int] | None:
    """The header at the beginning of a stream and how many bytes it takes; None when there must be more to
    tell. Fields that follow the addresses (TLVs) are passed over. Raises InvalidInput: the connection must
    be closed then."""
    if data[: len(SIGNATURE)] == SIGNATURE[: len(data)]:
        return _decode_v2(data)
    if data[:6] == b"PROXY "[: len(data)]:
        return _decode_v1(data)
    raise InvalidInput("no PROXY header: neither version's signature")


def _decode_v1(data: bytes) -> tuple[Header, int] | None:
    end = data.find(b"\r\n", 0, MOST_V1)
    if end < 0:
        if len(data) >= MOST_V1:
            raise InvalidInput(f"PROXY header: no end within {MOST_V1} bytes")
        return None
    words = data[6:end].decode("latin-1").split(" ")
    if words[0] == "UNKNOWN":
        return UNKNOWN, end + 2
    if words[0] not in ("TCP4", "TCP6") or len(words) != 5:
        raise InvalidInput("PROXY header: not TCP4 or TCP6, two addresses and two ports, one space between")
    source, destination = (_address(word) for word in words[1:3])
    version = int(words[0][-1])
    ports = [int(word) if _PORT.fullmatch(word) else -1 for word in words[3:]]
    if (source.version, destination.version) != (version, version) or not all(
        0 <= port <= 0xFFFF for port in ports
    ):
        raise InvalidInput("PROXY header: an address or port that is none of its kind")
    return _header(source, destination, ports[0], ports[1]), end + 2


def _decode_v2(data: bytes) -> tuple[Header, int] | None:
    if len(data) < HEAD:
        return None
    command, family = data[12], data[13]
    size = HEAD + int.from_bytes(data[14:16], "big")
    if command not in (_LOCAL, _PROXY):
        raise InvalidInput(f"PROXY header: version and command {command:#04x} are unknown")
    if len(data) < size:
        return None
    if command == _LOCAL or family not in _ADDRESSES:
        return UNKNOWN, size  # "must be accepted", and what they hold is to be ignored
    digit, layout = _ADDRESSES[family]
    if size - HEAD < layout.size:
        raise InvalidInput(f"PROXY header: {size - HEAD} bytes are no two addresses of IPv{digit}")
    source, destination, *ports = layout.unpack_from(data, HEAD)
    return _header(ipaddress.ip_address(source), ipaddress.ip_address(destination), *ports), size


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _header(source: _Address, destination: _Address, source_port: int, destination_port: int) -> Header:
    return Header(
        source=str(source),
        source_port=source_port,
        destination=str(destination),
        destination_port=destination_port,
    )


@lru_cache(maxsize=1024)
def _address(text: str) -> _Address:
    try:
        if "%" in text:
            raise ValueError
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise InvalidInput(f"PROXY header: {text[:60]!r} is no address") from error
