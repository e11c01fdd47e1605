"""From the View to the networks this host should carry. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from model.ids import HostId
from model.status import HostFacts
from model.view import NetworkView, View
from net.host import NetworkPlan


def network_plan(
    view: View, host: HostId, facts: HostFacts, *, leaving: Mapping[str, NetworkView] | None = None
) -> NetworkPlan:
    """A function of the View, of what this host is, and of the networks that somebody here has still to
    leave. Without services: those follow members, not Views."""
    networks = {**(leaving or {}), **{str(ident): network for ident, network in view.networks.items()}}
    return NetworkPlan(
        host=host,
        address=facts.address,
        mtu=facts.mtu,
        vxlan_port=view.vxlan_port,
        networks=networks,
        peers=dict(view.peers),
        vip_ranges={ident: n.vip_ranges for ident, n in networks.items() if n.vip_ranges},
    )
