"""What a tunnel has learned: which MAC is behind which peer. Invariant: permanent entries, ours, stay.

When a peer is gone from an address, the kernel keeps sending there what it learned to be there, until the
entry is five minutes old or its container speaks. Forgotten, such frames go to every peer, as those to
nobody known do.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable

from net.diff import Item
from net.kernel import rtnl
from net.kernel.observed import DUMPS, learned
from net.state import NO_MAC, Fdb


def forget(sock: socket.socket, removed: Iterable[Item]) -> None:
    """After these objects were removed: drop what was learned of peers that are gone. Raises OSError."""
    peers = [item for item in removed if isinstance(item, Fdb) and item.mac == NO_MAC]
    if not peers:
        return
    seen = rtnl.dump(sock, *DUMPS["fdb"])
    for peer in peers:
        link = socket.if_nametoindex(peer.link)
        gone = [rtnl.fdb(link, mac, peer.remote, add=False) for mac in learned(seen, link, peer.remote)]
        rtnl.check(rtnl.transact(sock, gone), accept=(0, errno.ENOENT))
