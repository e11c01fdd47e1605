"""Networks on the site's own by a bridge: a link of the host becomes its port, containers are others. Pure.

What the host had on the link stands on the bridge then, and is the host's as before: nothing of it is
described here (`net.nic` moves it, guarded). The host's foot for what is ours, names above all, is a veth of
its own on the bridge, with an address out of the network's, as the shim of macvlan is; by it the host reaches
the site where it has no address of its own on that link.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from model.errors import Problem
from model.ids import HostId
from model.view import NetworkView
from net.backend.base import (
    MOST_MTU,
    Features,
    Scene,
    Traits,
    full_prefix,
    is_ipv6,
    mtu_problems,
    option_int,
    subnet_problems,
)
from net.backend.site import DEFAULT_MTU, below, nic_of, vlan_link
from net.naming import network_alias, shim_mac, site_bridge_name, speaker_name, speaker_port_name, vlan_name
from net.nic.state import Wish
from net.state import Address, Link, NetState, Route
from net.subnets import host_address, host_addresses

LAST_METRIC = 61000
"""Any way of the host's own goes first."""


class NicBackend:
    def __init__(self) -> None:
        self.features = Features()

    def validate(self, view: NetworkView, scene: Scene) -> Iterable[Problem]:
        yield from subnet_problems(view)
        yield from mtu_problems(view)

    def traits(self, view: NetworkView, scene: Scene) -> Traits:
        own = host_addresses(view)
        carried = _carried(view, scene)
        return Traits(
            mtu=min(option_int(view, "mtu", 0, MOST_MTU) or carried, carried),
            onlink=True,
            inner=(speaker_name(view.id),) if own else (),
            own_ranges=(),
            here=own,
            bridge=site_bridge_name(view.id),
            stands=bool(below(view, scene)),
            asked=bool(own),
        )

    def fragment(self, view: NetworkView, scene: Scene) -> NetState:
        under = below(view, scene)
        if not under:
            return NetState()
        links = [_bridge(view, scene)]
        if under == vlan_name(view.parent):
            links.append(vlan_link(view, scene))
        own, name = host_addresses(view), speaker_name(view.id)
        if own:
            links += _speaker(view, scene)
        return NetState(
            links={link.name: link for link in links},
            addresses=frozenset(Address(link=name, cidr=full_prefix(address)) for address in own),
            routes=frozenset(_routes(view, name)),
            sysctls=_sysctls(view) if own else {},
        )

    def overhead(self, options: Mapping[str, str], address: str) -> int:
        return 0

    def unreached(self, view: NetworkView, scene: Scene) -> Mapping[HostId, str]:
        return {}


def wish_of(view: NetworkView, scene: Scene) -> Wish | None:
    """The link that its bridge is to have as a port; None while the host has none."""
    under = below(view, scene)
    if not under:
        return None
    name, bridge = view.spec.name, site_bridge_name(view.id)
    return Wish(network=name, parent=under, bridge=bridge, mtu=_carried(view, scene))


def _carried(view: NetworkView, scene: Scene) -> int:
    nic = nic_of(view, scene)
    return nic.mtu if nic is not None else DEFAULT_MTU


def _bridge(view: NetworkView, scene: Scene) -> Link:
    """Its MAC becomes its port's."""
    return Link(
        name=site_bridge_name(view.id), kind="bridge", alias=network_alias(view.id), mtu=_carried(view, scene)
    )


def _speaker(view: NetworkView, scene: Scene) -> list[Link]:
    speaker, port = speaker_name(view.id), speaker_port_name(view.id)
    alias, mtu = network_alias(view.id), _carried(view, scene)
    mac = shim_mac(scene.host, view.id)
    return [
        Link(name=speaker, kind="veth", alias=alias, mtu=mtu, mac=mac, peer=port),
        Link(name=port, kind="veth", alias=alias, mtu=mtu, master=site_bridge_name(view.id), peer=speaker),
    ]


def _routes(view: NetworkView, speaker: str) -> Iterable[Route]:
    """Where the host has an address of its own on the link, it goes by that: the site knows it by it."""
    for subnet in view.spec.subnets:
        source = host_address(subnet, view.blocks)
        if source:
            whole = str(ipaddress.ip_network(subnet.cidr))
            yield Route(destination=whole, link=speaker, source=source, metric=LAST_METRIC)


def _sysctls(view: NetworkView) -> dict[str, str]:
    """It answers for its own addresses only (arp_ignore, Linux ip-sysctl), or the site's machines would take
    it for the host."""
    speaker, port = speaker_name(view.id), speaker_port_name(view.id)
    ipv6 = any(is_ipv6(subnet.cidr) for subnet in view.spec.subnets)
    return {
        f"net/ipv4/conf/{speaker}/arp_ignore": "1",
        f"net/ipv4/conf/{speaker}/rp_filter": "2",
        f"net/ipv4/conf/{speaker}/send_redirects": "0",
        f"net/ipv6/conf/{speaker}/accept_ra": "0",
        f"net/ipv6/conf/{speaker}/disable_ipv6": "0" if ipv6 else "1",
        f"net/ipv6/conf/{port}/disable_ipv6": "1",
    }
