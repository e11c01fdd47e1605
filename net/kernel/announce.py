"""Telling a segment whose an address is now: gratuitous ARP and unsolicited neighbour advertisements.

Sent from the host's side, out of the bridge itself: a port that was just made does not forward for some
milliseconds. Neighbours that know the address take the new MAC at once, tunnels learn where it is.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable

from net.kernel.neighbours import announcement


class Herald:
    """One socket for all: closing one that sees packets waits until no processor uses it any more. It
    receives nothing."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def tell(self, link: str, mac: str, addresses: Iterable[str]) -> None:
        """These addresses are at `mac`. Nobody answers; what is lost, neighbours find out by themselves
        later, so a link that goes meanwhile is no error."""
        if self._socket is None:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        raw = bytes.fromhex(mac.replace(":", ""))
        for address in addresses:
            with contextlib.suppress(OSError):
                self._socket.sendto(announcement(address, raw), (link, 0))

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
