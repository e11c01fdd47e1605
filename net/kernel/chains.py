"""Whose rules have a say, by the chains that there are: their hooks, policies and numbers of rules.

No rule is listed. The socket is the caller's, as in `net.kernel.nfnetlink`.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Container

from net.kernel.nfnetlink import (
    GETCHAIN,
    NF_DROP,
    NFPROTO_BRIDGE,
    NFPROTO_INET,
    NFPROTO_NETDEV,
    NFPROTO_UNSPEC,
    attr,
    attributes,
    dump,
    each,
)

LOCAL_IN, LOCAL_OUT = 1, 3
"""Hooks of packets that don't pass (linux/netfilter.h)."""


def filtered_by(link: socket.socket, ours: Container[str]) -> str:
    """A table of others whose rules are asked of what passes this host; empty where there is none. Chains
    that translate addresses don't count, nor those without rules that accept."""
    for payload in dump(link, GETCHAIN, NFPROTO_UNSPEC, b""):
        parts = attributes(payload)
        table, kind = (parts.get(n, b"").rstrip(b"\0").decode(errors="replace") for n in (1, 7))
        if 4 not in parts or table in ours or kind == "nat":
            continue
        hook = int.from_bytes(dict(each(parts[4], 0)).get(1, b""), "big")
        passes = hook not in (LOCAL_IN, LOCAL_OUT) or payload[0] in (NFPROTO_BRIDGE, NFPROTO_NETDEV)
        says = int.from_bytes(parts.get(6, b""), "big") or parts.get(5) == struct.pack(">I", NF_DROP)
        if passes and says:
            return table
    return ""


def dropping_chains(link: socket.socket, table: str, family: int = NFPROTO_INET) -> set[str]:
    """Names of a table's chains whose policy is to drop."""
    found = set[str]()
    for payload in dump(link, GETCHAIN, family, attr(1, table.encode() + b"\0")):
        parts = attributes(payload)
        if parts[1] == table.encode() + b"\0" and parts.get(5) == struct.pack(">I", NF_DROP):
            found.add(parts[3].rstrip(b"\0").decode())
    return found
