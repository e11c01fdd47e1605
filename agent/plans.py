"""From the View to the networks this host should carry. Pure."""

from __future__ import annotations

from model.ids import HostId
from model.status import HostFacts
from model.view import View
from net.host import NetworkPlan


def network_plan(view: View, host: HostId, facts: HostFacts) -> NetworkPlan:
    """A function of the View and of what this host is; nothing else changes the network of a host."""
    return NetworkPlan(
        host=host,
        address=facts.address,
        mtu=facts.mtu,
        vxlan_port=view.vxlan_port,
        networks={str(ident): network for ident, network in view.networks.items()},
        peers=dict(view.peers),
    )
