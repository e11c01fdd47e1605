"""What a fleet's settings may be. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from model.errors import Problem
from model.records import FleetSettings

LAST_VNI, LAST_PORT, FIRST_FREE = (1 << 24) - 1, 65535, 1024


def settings_problems(settings: FleetSettings) -> Iterator[Problem]:
    """Everything wrong with them."""
    if not 0 < settings.vxlan_port <= LAST_PORT:
        yield Problem(path="vxlan_port", message=f"{settings.vxlan_port} is no port (1 to {LAST_PORT})")
    if not 0 < settings.vni_first <= settings.vni_last <= LAST_VNI:
        words = f"{settings.vni_first}-{settings.vni_last} is no range of VNIs (1 to {LAST_VNI}, RFC 7348)"
        yield Problem(path="vni_range", message=words)
    first, last = settings.source_ports
    if (first, last) != (0, 0) and not FIRST_FREE <= first <= last <= LAST_PORT:
        words = f"{first}-{last} is no range of source ports ({FIRST_FREE} to {LAST_PORT})"
        yield Problem(path="source_ports", message=words)
