"""The kinds of networks, as one visible table: driver name → backend. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from net.backend.base import Backend
from net.backend.bridge import BridgeBackend
from net.backend.site import SiteBackend
from net.backend.vxlan import VxlanBackend

BACKENDS: Mapping[str, Backend] = {
    "overlay": VxlanBackend(),
    "bridge": BridgeBackend(),
    "macvlan": SiteBackend("macvlan"),
    "ipvlan": SiteBackend("ipvlan"),
}
