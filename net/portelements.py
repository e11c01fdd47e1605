"""Published ports of services as elements of nft maps: from a port to one of its members. Pure.

Beside the maps of virtual addresses (`net.loadbalance`), in the same manner: a protocol and port of the host
lead by one map to the chain of the method and number of members, and from there by a second to a member; a
third tells the member's port. A port stands in the first map also while nobody is ready: it is refused then,
and not somebody else's. With an allow-list it is in `limited`, and its clients' ranges are in `clients`.

Keys: protocol and port, each padded to four bytes; a range of clients is its lowest key and its highest.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from model.spec import Protocol, Publish

SETS = (
    *("port4", "portpick4", "clients4", "port6", "portpick6", "clients6"),
    *("target", "limited", "portsticky"),
)
INTERVALS = frozenset({"clients4", "clients6"})
REFUSED = "refused"
"""The chain of a port without members."""
PREFIX = "port-"
"""Of chains that pick a port's member."""
_NUMBERS: dict[Protocol, int] = {"tcp": 6, "udp": 17, "sctp": 132}
"""IANA's, as in the IP header."""
LENGTH = 8
"""Bytes of a key; no address has as many."""


def key(protocol: Protocol, port: int) -> bytes:
    return bytes((_NUMBERS[protocol], 0, 0, 0)) + port.to_bytes(2, "big") + bytes(2)


def datagram_port(port: bytes) -> int:
    """The number of a UDP port's key; 0 for another's."""
    return int.from_bytes(port[4:6], "big") if len(port) == LENGTH and port[0] == _NUMBERS["udp"] else 0


def enter(
    port: Publish,
    chain: str,
    digit: str,
    members: Sequence[tuple[bytes, bytes]],
    into: dict[str, dict[bytes, bytes]],
) -> None:
    """One port in one family, `members` by their number in the kernel's form; `chain` picks among them."""
    at = key(port.protocol, port.published)
    into[f"port{digit}"][at] = (f"{PREFIX}{chain}" if members else REFUSED).encode()
    into[f"portpick{digit}"].update((at + number, member) for number, member in members)
    into["target"][at] = port.target.to_bytes(2, "big")
    if port.allow:
        into["limited"][at] = b""
        for low, high in spans(port.allow, int(digit)):
            into[f"clients{digit}"][at + low + at + high] = b""


def spans(ranges: Iterable[str], version: int) -> Iterable[tuple[bytes, bytes]]:
    """Lowest and highest address of each range of one family, apart from each other."""
    given = (ipaddress.ip_network(text) for text in ranges)
    for whole in ipaddress.collapse_addresses(n for n in given if n.version == version):  # type: ignore[type-var]
        yield whole.network_address.packed, whole.broadcast_address.packed
