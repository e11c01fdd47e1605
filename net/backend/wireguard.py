"""Encrypted overlays by WireGuard: a bridge per network and host, joined by a tunnel device that encrypts.
Pure.

Routed only. A device belongs to one network and one generation of its keys; each peer's blocks are what it
may send from (WireGuard's cryptokey routing) and what is routed to it, so a packet with a source that is not
its sender's never arrives. While keys are changed two devices stand, both take what comes, and routes say by
which is sent (docs/adr/0027-encrypted-networks.md).

Fails closed: the network's whole range is unreachable but for the blocks whose way is known, that way is the
device alone, and `net.sealing` drops what would be seen on the underlay.
"""

from __future__ import annotations

from collections.abc import Iterable

from model.factrules import address_fault
from model.tunnels import TunnelEnd, end_fault, end_of
from model.view import NetworkPeer, NetworkView, Peer
from net.backend.base import Scene, bridge_sysctls, full_prefix, gateways, is_ipv6
from net.naming import bridge_name, gateway_mac, network_alias, wireguard_name
from net.state import Address, Link, LocalEnd, NetState, Route, TunnelPeer, WireGuard
from net.subnets import gateway, host_address, subnet_of

OVERHEAD_IPV4, OVERHEAD_IPV6 = 60, 80
"""Outer IP 20 or 40 + UDP 8 + WireGuard 32 (its whitepaper, 5.4.6). Padding to 16 bytes stops at the MTU."""
KEEPALIVE = 25
"""Seconds; what WireGuard's makers advise for hosts behind NAT."""


def overhead(underlay: str) -> int:
    """What the tunnel adds to each packet, between hosts with addresses like this one."""
    return OVERHEAD_IPV6 if is_ipv6(underlay) else OVERHEAD_IPV4


def tunnels(view: NetworkView, scene: Scene) -> tuple[str, ...]:
    """The devices of all generations that this host has keys of."""
    return tuple(wireguard_name(view.id, end.generation) for end in _ends(view, scene))


def fragment(view: NetworkView, scene: Scene, mtu: int, own: Iterable[str]) -> NetState:
    """`own`: the host's own addresses in the network."""
    bridge, ends = bridge_name(view.id), _ends(view, scene)
    addresses = {Address(link=bridge, cidr=full_prefix(a)) for a in gateways(view)}
    # rp_filter drops all that has its way back by another device where a device has no address
    standing = tuple(own) or gateways(view)
    addresses |= {Address(link=name, cidr=full_prefix(a)) for name in tunnels(view, scene) for a in standing}
    routes = {Route(destination=subnet.cidr) for subnet in view.spec.subnets}
    routes |= {Route(destination=b, link=bridge, source=_gateway_of(view, b)) for b in view.held}
    if any(end.generation == view.keys.sending for end in ends):
        routes |= set(_ways(view, scene))
    links = [_bridge(view, mtu), *(_device(view, end, mtu) for end in ends)]
    return NetState(
        links={link.name: link for link in links},
        addresses=frozenset(addresses),
        tunnel_peers=frozenset(peer for end in ends for peer in _peers(view, scene, end)),
        routes=frozenset(routes),
        sysctls=_sysctls(view, scene),
    )


def _ends(view: NetworkView, scene: Scene) -> tuple[LocalEnd, ...]:
    keys = view.keys
    return tuple(e for e in scene.ends.get(view.id, ()) if keys.oldest <= e.generation <= keys.newest)


def _bridge(view: NetworkView, mtu: int) -> Link:
    alias = network_alias(view.id)
    return Link(name=bridge_name(view.id), kind="bridge", alias=alias, mtu=mtu, mac=gateway_mac(view.id))


def _device(view: NetworkView, end: LocalEnd, mtu: int) -> Link:
    return Link(
        name=wireguard_name(view.id, end.generation),
        kind="wireguard",
        alias=network_alias(view.id),
        mtu=mtu,
        wireguard=WireGuard(key=end.key, port=end.port),
        key_file=end.key_file,
    )


def _peers(view: NetworkView, scene: Scene, mine: LocalEnd) -> Iterable[TunnelPeer]:
    seen = {mine.key}
    for member in view.peers:
        peer, end = scene.peers.get(member.host), _end_of(member, scene, mine.generation)
        if peer is None or end is None or end.key in seen:
            continue
        seen.add(end.key)
        yield TunnelPeer(
            link=wireguard_name(view.id, mine.generation),
            key=end.key,
            allowed=tuple(sorted(member.blocks)),
            endpoint=_endpoint(peer, end.port, scene),
            keepalive=KEEPALIVE if scene.behind_nat else 0,
        )


def _end_of(member: NetworkPeer, scene: Scene, generation: int) -> TunnelEnd | None:
    """None also for one that nobody can send to: it is another host's word, and one peer's nonsense would
    keep all others out of the device."""
    peer, end = scene.peers.get(member.host), end_of(member.ends, generation)
    if peer is None or end is None or address_fault(peer.address) or end_fault(end):
        return None
    return end


def _endpoint(peer: Peer, port: int, scene: Scene) -> str:
    """One behind NAT has to speak first, to all but those beside it: two that are behind NATs meet if they
    have a link in common."""
    if peer.behind_nat and not scene.behind_nat:
        return ""
    return f"[{peer.address}]:{port}" if is_ipv6(peer.address) else f"{peer.address}:{port}"


def _ways(view: NetworkView, scene: Scene) -> Iterable[Route]:
    """To peers that can be sent to; all others stay unreachable."""
    for member in view.peers:
        if _end_of(member, scene, view.keys.sending) is not None:
            for block in member.blocks:
                source = host_address(subnet_of(view.spec, block.split("/")[0]), view.blocks)
                link = wireguard_name(view.id, view.keys.sending)
                yield Route(destination=block, link=link, source=source)


def _sysctls(view: NetworkView, scene: Scene) -> dict[str, str]:
    """Sources are checked by the device; the way back may be another generation's."""
    ipv6 = any(is_ipv6(subnet.cidr) for subnet in view.spec.subnets)
    found = dict(bridge_sysctls(view.id, ipv6=ipv6))
    for name in tunnels(view, scene):
        found[f"net/ipv4/conf/{name}/rp_filter"] = "2"
        found[f"net/ipv4/conf/{name}/send_redirects"] = "0"
        found[f"net/ipv6/conf/{name}/accept_ra"] = "0"
        found[f"net/ipv6/conf/{name}/disable_ipv6"] = "0" if ipv6 else "1"
    return found


def _gateway_of(view: NetworkView, block: str) -> str:
    return str(gateway(subnet_of(view.spec, block.split("/")[0])))
