"""Who may connect to a port, and to which of its backends. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from net.proxy.ranges import Ranges
from net.proxy.state import Backend, Port


class Clients:
    """Those of a port. Raises ValueError."""

    def __init__(self, port: Port) -> None:
        self._backends = port.backends
        self._allow = Ranges(port.allow) if port.allow else None
        among = [None if b.among is None else Ranges(b.among) for b in port.backends]
        self._among = among if any(ranges is not None for ranges in among) else None

    def backends(self, source: str, own: str) -> Sequence[Backend]:
        """Where a client that asks our address `own` may go, in order; nowhere: it is refused. Policies don't
        speak of a host's own questions: those come from loopback, or from the address that they go to."""
        if self._allow is not None and source not in self._allow:
            return ()
        if self._among is None or source == own or ipaddress.ip_address(source).is_loopback:
            return self._backends
        pairs = zip(self._backends, self._among, strict=True)
        return [backend for backend, ranges in pairs if ranges is None or source in ranges]
