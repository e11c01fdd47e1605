"""The ranges that a host reaches already, out of the kernel's route tables (proc(5)): no network may take
them.

Invariant: routes of our own networks, default routes, link-local and multicast ones are not among them.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable

from model.spec import Struct
from net.naming import PRIVATE

MOST = 256
"""Ranges that are told; a router with more routes than that is trusted to know what it does."""
READ = 1 << 20
"""Bytes of a table that are looked at."""
_NOBODYS = tuple(ipaddress.IPv6Network(cidr) for cidr in ("fe80::/10", "ff00::/8", "::1/128"))


class Reached(Struct):
    """`links`: on a link of the host itself; `routes`: behind a gateway."""

    links: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()


def measure() -> Reached:
    return parse(_read("/proc/net/route"), _read("/proc/net/ipv6_route"))


def parse(ipv4: str, ipv6: str) -> Reached:
    """From the text of both files; what can't be read is passed over."""
    links: dict[str, None] = {}
    routes: dict[str, None] = {}
    for range_, direct in (*_ipv4(ipv4), *_ipv6(ipv6)):
        (links if direct else routes).setdefault(range_)
    return Reached(links=tuple(links)[:MOST], routes=tuple(routes)[:MOST])


def _ipv4(text: str) -> Iterable[tuple[str, bool]]:
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) < 8 or words[0] == "*" or words[0].startswith(PRIVATE):
            continue
        address, gateway, mask = (_ip(words[column]) for column in (1, 2, 7))
        if mask != "0.0.0.0":  # noqa: S104 - the default route's mask
            yield str(ipaddress.IPv4Network(f"{address}/{mask}")), gateway == "0.0.0.0"  # noqa: S104


def _ip(word: str) -> str:
    """A word in the host's byte order."""
    return socket.inet_ntoa(struct.pack("=I", int(word, 16)))


def _ipv6(text: str) -> Iterable[tuple[str, bool]]:
    for line in text.splitlines():
        words = line.split()
        if len(words) < 10 or words[9] == "lo" or words[9].startswith(PRIVATE) or words[1] == "00":
            continue
        found = ipaddress.IPv6Network((int(words[0], 16), int(words[1], 16)))
        if not any(found.subnet_of(other) for other in _NOBODYS):
            yield str(found), not int(words[4], 16)


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            text = file.read(READ)
    except OSError:
        return ""
    return text if len(text) < READ else text.rpartition("\n")[0]
