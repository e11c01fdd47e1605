"""Plain routes between hosts that share a link: who is there, and by which next hop. Pure.

A peer shares this host's link when its underlay address is in a range that the link reaches without a router.
Next hops are that address, and for IPv6 blocks over an IPv4 underlay the peer's link-local address on that
link: IPv4 may go by an IPv6 next hop (RFC 5549), not the other way round. Invariant: a route of ours leads to
a peer's block only, so the way back to a container's address tells whose packets may carry it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from model.view import NetworkPeer, NetworkView, Peer
from net.backend.base import Scene, is_ipv6
from net.state import Route
from net.subnets import subnet_of


def shares_link(scene: Scene, peer: Peer) -> bool:
    address = ipaddress.ip_address(peer.address)
    ranges = map(ipaddress.ip_network, scene.onlink)
    return bool(scene.link) and any(address.version == r.version and address in r for r in ranges)


def passes(scene: Scene, member: NetworkPeer, peer: Peer) -> bool:
    """Whether all of a peer's blocks can be reached so."""
    return shares_link(scene, peer) and not no_way(member, peer)


def next_hop(block: str, peer: Peer) -> str:
    """Empty where there is none: an IPv6 block of a peer without IPv6 on its link."""
    if is_ipv6(block) and not is_ipv6(peer.address):
        return peer.link_local
    return peer.address


def routes(
    view: NetworkView, scene: Scene, member: NetworkPeer, peer: Peer, sources: Mapping[str, str]
) -> Iterable[Route]:
    """To the blocks of a peer that shares the link; to those without a next hop there is none. `sources` as
    of `net.backend.base.own_sources`."""
    for block in member.blocks:
        if hop := next_hop(block, peer):
            source = sources[subnet_of(view.spec, block.split("/")[0]).cidr]
            yield Route(destination=block, link=scene.link, via=hop, source=source)


def no_way(member: NetworkPeer, peer: Peer) -> str:
    """Why some of the blocks of a peer that shares the link can't be reached; empty where all can."""
    if all(next_hop(block, peer) for block in member.blocks):
        return ""
    return f"{peer.name} ({peer.address}) has no IPv6 address on its link, so its IPv6 can't be reached"
