"""From the View to the networks this host should carry. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from model.ids import HostId
from model.status import HostFacts
from model.view import NetworkView, View
from net.host import NetworkPlan
from net.plan import can_stand, scene_of, traits_of


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
        source_ports=view.source_ports,
        networks=networks,
        peers=dict(view.peers),
        behind_nat=facts.behind_nat,
        vip_ranges={ident: n.vip_ranges for ident, n in networks.items() if n.vip_ranges},
        addresses=facts.addresses,
        nics=facts.nics,
    )


def unfounded(plan: NetworkPlan) -> Iterable[str]:
    """What is wrong with this host: networks that need a link which it has not, or not any more."""
    scene = scene_of(plan)
    for _, view in sorted(plan.networks.items()):
        if not can_stand(traits_of(view, scene)):
            link = view.parent or view.spec.options.get("parent", "")
            yield f"network {view.spec.name}: this host has no link {link} that is up"
