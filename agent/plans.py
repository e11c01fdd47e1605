"""From the View to the networks this host should carry. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from model.ids import HostId
from model.status import HostFacts
from model.view import View
from net.host import NetworkPlan
from net.loadbalance import VirtualService


def network_plan(
    view: View, host: HostId, facts: HostFacts, services: Mapping[str, VirtualService] | None = None
) -> NetworkPlan:
    """A function of the View, of what this host is and of the services that it balances."""
    return NetworkPlan(
        host=host,
        address=facts.address,
        mtu=facts.mtu,
        vxlan_port=view.vxlan_port,
        networks={str(ident): network for ident, network in view.networks.items()},
        peers=dict(view.peers),
        vip_ranges={str(ident): n.vip_ranges for ident, n in view.networks.items() if n.vip_ranges},
        services=services or {},
    )
