"""The kinds of networks, as one visible table: driver name → backend. Pure.

Third parties' drivers join it by `add`, which `main.py` files alone call, before anything else runs
(docs/drivers.md); from then on the table is what it is. Invariant: nobody takes a name that is taken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from model.errors import InvalidInput
from net.backend.base import Backend
from net.backend.bridge import BridgeBackend
from net.backend.hostgw import HostGatewayBackend
from net.backend.nic import NicBackend
from net.backend.site import SiteBackend
from net.backend.vxlan import VxlanBackend

_TABLE: dict[str, Backend] = {
    "overlay": VxlanBackend(),
    "host-gw": HostGatewayBackend(),
    "bridge": BridgeBackend(),
    "macvlan": SiteBackend("macvlan"),
    "ipvlan": SiteBackend("ipvlan"),
    "nic": NicBackend(),
}
BACKENDS: Mapping[str, Backend] = MappingProxyType(_TABLE)
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


def add(more: Mapping[str, Backend]) -> None:
    """Raises InvalidInput for a name that can't be a driver's or that another driver has; then none is
    added."""
    for name, backend in more.items():
        if not _NAME.fullmatch(name):
            raise InvalidInput(f"network driver {name[:40]!r}: a name has a-z, 0-9 and '-', 31 at most")
        if _TABLE.get(name, backend) is not backend:
            raise InvalidInput(f"network driver {name}: there is one of that name already")
    _TABLE.update(more)


def spans_hosts(driver: str) -> bool:
    """Whether hosts share the subnets of such a network. Of a driver that is not known here, yes: what it
    leased must not be given to others."""
    backend = BACKENDS.get(driver)
    return backend is None or backend.features.spans_hosts
