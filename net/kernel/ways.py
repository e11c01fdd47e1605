"""Which link the kernel would send a packet by (RTM_GETROUTE, rtnetlink(7)): by all rules and routes there
are, ours or not.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

from net.kernel import rtnl
from net.kernel.observed import RTA_OIF

RTM_GETROUTE = 26
RTA_DST, RTA_SRC = 1, 2


def ways(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """By name, for each (source, target); empty where the kernel has no way. Blocking, microseconds each."""
    with rtnl.connect() as link:
        return [_way(link, source, target) for source, target in pairs]


def _way(link: socket.socket, source: str, target: str) -> str:
    family, bits = (socket.AF_INET6, 128) if ":" in target else (socket.AF_INET, 32)
    body = struct.pack("=BBBBBBBBI", family, bits, bits, 0, 0, 0, 0, 0, 0)
    for kind, address in ((RTA_DST, target), (RTA_SRC, source)):
        body += rtnl.attr(kind, socket.inet_pton(family, address))
    link.send(struct.pack("=IHHII", 16 + len(body), RTM_GETROUTE, rtnl.REQUEST, 1, 0) + body)
    data = link.recv(1 << 16)
    (kind,) = struct.unpack_from("=H", data, 4)
    if kind != rtnl.RTM_NEWROUTE:
        return ""
    index = _attribute(data[16 + 12 :], RTA_OIF)
    try:
        return socket.if_indextoname(struct.unpack("=I", index)[0]) if index else ""
    except OSError:
        return ""


def _attribute(data: bytes, wanted: int) -> bytes:
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if kind == wanted:
            return data[at + 4 : at + length]
        at += max(4, length + (-length % 4))
    return b""
