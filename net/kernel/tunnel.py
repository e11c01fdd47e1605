"""A VXLAN device in the words of pyroute2 (IFLA_VXLAN_*, Linux if_link.h)."""

from __future__ import annotations

from typing import Any

from net.state import Vxlan


def words(vxlan: Vxlan) -> dict[str, Any]:
    local = "vxlan_local6" if ":" in vxlan.local else "vxlan_local"
    found: dict[str, Any] = {
        "vxlan_id": vxlan.vni,
        "vxlan_port": vxlan.port,
        local: vxlan.local,
        "vxlan_learning": int(vxlan.learning),
    }
    if any(vxlan.source_ports):
        low, high = vxlan.source_ports
        found["vxlan_port_range"] = {"low": low, "high": high}
    return found
