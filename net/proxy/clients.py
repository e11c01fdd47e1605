"""Who may connect to a port. Pure."""

from __future__ import annotations

import ipaddress

from net.proxy.ranges import Ranges
from net.proxy.state import Port


class Clients:
    """Those of a port. Raises ValueError."""

    def __init__(self, port: Port) -> None:
        self._allow = Ranges(port.allow) if port.allow else None
        self._among = Ranges(port.among) if port.among is not None else None

    def let_in(self, source: str, own: str) -> bool:
        """Whether a client may connect to our address `own`. Policies don't speak of a host's own questions:
        those come from loopback, or from the address that they go to."""
        if self._allow is not None and source not in self._allow:
            return False
        if self._among is None or source == own or source in self._among:
            return True
        return ipaddress.ip_address(source).is_loopback
