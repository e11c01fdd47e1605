"""From the View to the networks this host should carry. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agent.record import Local
from model.ids import HostId
from model.status import HostFacts
from model.view import NetworkView, View
from net.backend import BACKENDS
from net.host import NetworkPlan
from net.plan import can_stand, scene_of, traits_of


def network_plan(
    view: View, host: HostId, facts: HostFacts, *, leaving: Mapping[str, NetworkView] | None = None
) -> NetworkPlan:
    """A function of the View, of what this host is, and of the networks that somebody here has still to
    leave. Without services: those follow members, not Views. Networks of a driver that is not here
    are left out."""
    named = {**(leaving or {}), **{str(ident): network for ident, network in view.networks.items()}}
    networks = {ident: network for ident, network in named.items() if network.spec.driver in BACKENDS}
    return NetworkPlan(
        host=host,
        address=facts.address,
        mtu=facts.mtu,
        vxlan_port=view.vxlan_port,
        source_ports=view.source_ports,
        link=facts.link,
        onlink=facts.onlink,
        checksums=facts.checksums,
        networks=networks,
        peers=dict(view.peers),
        behind_nat=facts.behind_nat,
        vip_ranges={ident: n.vip_ranges for ident, n in networks.items() if n.vip_ranges},
        addresses=facts.addresses,
        nics=facts.nics,
    )


def leaving(
    carried: Mapping[str, NetworkView], view: View, records: Iterable[Local]
) -> Mapping[str, NetworkView]:
    """Networks that the View has no longer and that somebody here still stands on: a way out moves to its new
    network before the old one goes."""
    gone = {ident: found for ident, found in carried.items() if ident not in view.networks}
    used = {e.network for record in records for e in record.endpoints} if gone else ()
    return {ident: found for ident, found in gone.items() if ident in used}


def unfounded(plan: NetworkPlan) -> Iterable[str]:
    """What is wrong with this host: networks that need a link which it has not, or not any more."""
    scene = scene_of(plan)
    for _, view in sorted(plan.networks.items()):
        if not can_stand(traits_of(view, scene)):
            link = view.parent or view.spec.options.get("parent", "")
            yield f"network {view.spec.name}: this host has no link {link} that is up"


def without_driver(view: View) -> tuple[str, ...]:
    """The networks that this host can't carry, each with the remedy: for people."""
    return tuple(
        f"network {network.spec.name}: there is no driver {network.spec.driver} here, "
        f"start this host's agent with --network-driver {network.spec.driver}"
        for _, network in sorted(view.networks.items())
        if network.spec.driver not in BACKENDS
    )
