"""Networks whose hosts are each other's gateways: plain routes by the underlay's link, no tunnel. Pure.

As in a routed overlay each host has a bridge and blocks of its own, containers hold /32 and /128, and a start
changes nothing on other hosts; a peer costs one route per block. Packets pass the underlay as they are, with
the containers' own addresses, at the underlay's full MTU. Only hosts that share a link can do that; between
others nothing passes, and both say so. Who is on that link can send what it likes, as on any wire.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from model.errors import Problem
from model.ids import HostId
from model.view import NetworkView
from net.backend import direct
from net.backend.base import (
    Features,
    Scene,
    Traits,
    block_routes,
    bridge_sysctls,
    full_prefix,
    gateways,
    is_ipv6,
    link_addresses,
    mtu_problems,
    option_int,
    own_addresses,
    own_sources,
    subnet_problems,
)
from net.naming import bridge_name, gateway_mac, network_alias
from net.state import Address, Link, NetState


class HostGatewayBackend:
    features = Features()

    def validate(self, view: NetworkView, scene: Scene) -> Iterable[Problem]:
        yield from subnet_problems(view)
        if (rps := view.spec.options.get("rps", "on")) not in ("on", "off"):
            yield Problem(path="options.rps", message=f"{rps!r} is neither on nor off")
        yield from mtu_problems(view, most=scene.mtu, why=f" (the underlay carries {scene.mtu})")

    def traits(self, view: NetworkView, scene: Scene) -> Traits:
        return Traits(
            mtu=option_int(view, "mtu", 0, 65535) or scene.mtu,
            onlink=False,
            inner=(bridge_name(view.id),),
            own_ranges=tuple(subnet.cidr for subnet in view.spec.subnets),
            here=(*gateways(view), *own_addresses(view)),
            steered=view.spec.options.get("rps", "on") == "on",
            direct=scene.link,
        )

    def fragment(self, view: NetworkView, scene: Scene) -> NetState:
        bridge = bridge_name(view.id)
        link = Link(
            name=bridge,
            kind="bridge",
            alias=network_alias(view.id),
            mtu=self.traits(view, scene).mtu,
            mac=gateway_mac(view.id),
        )
        routes, sources = block_routes(view), own_sources(view)
        for member in view.peers:
            peer = scene.peers.get(member.host)
            if peer is not None and direct.shares_link(scene, peer):
                routes |= set(direct.routes(view, scene, member, peer, sources))
        here = (*gateways(view), *own_addresses(view))
        addresses = (Address(link=bridge, cidr=full_prefix(address)) for address in here)
        return NetState(
            links={bridge: link},
            addresses=frozenset((*addresses, *link_addresses(view))),
            routes=frozenset(routes),
            sysctls=bridge_sysctls(view.id, ipv6=any(is_ipv6(s.cidr) for s in view.spec.subnets)),
        )

    def overhead(self, options: Mapping[str, str], address: str) -> int:
        return 0

    def unreached(self, view: NetworkView, scene: Scene) -> Mapping[HostId, str]:
        found: dict[HostId, str] = {}
        for member in view.peers:
            peer = scene.peers.get(member.host)
            if peer is None or not member.blocks:
                continue
            if not direct.shares_link(scene, peer):
                found[peer.host] = (
                    f"{peer.name} ({peer.address}) is on no link of this host: "
                    "between subnets use an overlay, with --opt direct=true"
                )
            elif why := direct.no_way(member, peer):
                found[peer.host] = why
        return found
