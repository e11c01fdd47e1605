"""The ways from a host to its peers that a check-up tries: by the underlay and by each network. Pure.

A network's host address answers on every host that carries it: packets to it take the way of packets to
containers, tunnel included.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from model.ids import HostId
from model.netoptions import SITE_DRIVERS
from model.spec import Struct
from model.tunnels import end_of
from model.view import NetworkView
from net.backend.base import Scene
from net.host import NetworkPlan
from net.plan import backend_of, scene_of, traits_of
from net.state import Route
from net.subnets import host_address


class Path(Struct):
    peer: HostId
    network: str
    """Its name; empty for the underlay."""
    source: str
    target: str
    mtu: int
    link: str = ""
    """By which it should leave; empty: whichever."""
    port: int = 0
    """UDP port of the peer by which an encrypted network reaches it; 0: the fleet's VXLAN port."""
    tunnel: bool = False
    """Whether it leaves in others' packets."""


def paths_of(plan: NetworkPlan) -> tuple[Path, ...]:
    """All of them, in the order of peers and networks; networks on the site's own are the site's affair. A
    host without an address of its own in a network (its blocks are single addresses) is not tried there, nor
    is a peer that a network can't reach from here."""
    scene = scene_of(plan)
    found = [
        Path(peer=peer.host, network="", source=plan.address, target=peer.address, mtu=plan.mtu)
        for _, peer in sorted(scene.peers.items())
        if (":" in peer.address) == (":" in plan.address) and not peer.behind_nat
    ]
    for _, view in sorted(plan.networks.items()):
        if view.spec.driver not in SITE_DRIVERS:
            found += _of_network(view, scene)
    return tuple(found)


def _link(target: str, routes: Iterable[Route]) -> str:
    """Of the narrowest of our routes that leads there."""
    address, narrowest, found = ipaddress.ip_address(target), -1, ""
    for route in routes:
        whole = ipaddress.ip_network(route.destination)
        if not route.table and address in whole and whole.prefixlen > narrowest:
            narrowest, found = whole.prefixlen, route.link
    return found


def _of_network(view: NetworkView, scene: Scene) -> Iterable[Path]:
    backend, mtu = backend_of(view), traits_of(view, scene).mtu
    routes, far = backend.fragment(view, scene).routes, backend.unreached(view, scene)
    for member in view.peers:
        peer = scene.peers.get(member.host)
        if peer is None or member.host in far:
            continue
        end = end_of(member.ends, view.keys.sending)
        port = end.port if end is not None else 0
        for subnet in view.spec.subnets:
            source, target = host_address(subnet, view.blocks), host_address(subnet, member.blocks)
            if source and target:
                link = _link(target, routes)
                yield Path(
                    peer=member.host,
                    network=view.spec.name,
                    source=source,
                    target=target,
                    mtu=mtu,
                    port=port,
                    link=link,
                    tunnel=link != scene.link,
                )
