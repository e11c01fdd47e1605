"""Overlay networks by VXLAN (RFC 7348): a bridge per network and host, joined by a tunnel device. Pure.

Routed mode: containers hold /32 and /128 and send everything to the gateway, whose address stands on each
host's bridge. A peer host costs one route per block, one neighbour entry and one FDB entry; starting a
container changes nothing on other hosts. Next hops are the peers' underlay addresses, unique by nature and
needing no exchange (docs/adr/0010-next-hop-of-an-overlay-block.md); the neighbour entry is on the tunnel
device, so the underlay never sees it.

With `direct` a peer on this host's own link is reached by plain routes instead (`net.backend.direct`), and
has neither neighbour nor FDB entry. The MTU stays the tunnel's: a network has one, and who shares a link may
change under running containers.

Bridged mode: the tunnel device is a port of the bridge, one L2 segment over all hosts. Frames to nobody known
go to every peer (head-end replication), places are learned from frames that arrive: a container that moves
announces itself by talking, and nothing is programmed per container. The gateway MAC is the same on each host
and never crosses the tunnel (see `net.l2guard`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from model.errors import Problem
from model.ids import HostId
from model.netoptions import encrypted
from model.view import NetworkView, Peer
from net import returnpath
from net.backend import direct, wireguard
from net.backend.base import (
    LEAST_MTU,
    LEAST_MTU_IPV6,
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
from net.naming import (
    bridge_name,
    gateway_mac,
    link_local,
    network_alias,
    speaker_mac,
    speaker_name,
    speaker_port_name,
    vtep_mac,
    vxlan_name,
)
from net.returnpath import Hop
from net.state import NO_MAC, Address, Fdb, Link, Neighbour, NetState, Route, Vxlan
from net.subnets import subnet_of

OVERHEAD_IPV4, OVERHEAD_IPV6 = 50, 70
"""Outer Ethernet 14 + IP 20 or 40 + UDP 8 + VXLAN 8 (RFC 7348, section 4.3)."""
LAST_VNI = (1 << 24) - 1


class VxlanBackend:
    features = Features()

    def validate(self, view: NetworkView, scene: Scene) -> Iterable[Problem]:
        yield from subnet_problems(view)
        if not 0 < view.vni <= LAST_VNI:
            yield Problem(path="options.vni", message=f"{view.vni} is no VNI (1 to {LAST_VNI})")
        mode = view.spec.options.get("mode", "routed")
        if mode not in ("routed", "bridged"):
            yield Problem(path="options.mode", message=f"{mode!r} is neither routed nor bridged")
        if is_direct(view) and bridged(view):
            yield Problem(
                path="options.direct", message="a bridged overlay is one segment: it is never direct"
            )
        if (rps := view.spec.options.get("rps", "on")) not in ("on", "off"):
            yield Problem(path="options.rps", message=f"{rps!r} is neither on nor off")
        least = LEAST_MTU_IPV6 if any(is_ipv6(s.cidr) for s in view.spec.subnets) else LEAST_MTU
        if encrypted(view.spec.options) and mode == "bridged":
            yield Problem(path="options.encrypted", message="a bridged overlay can't be encrypted")
        most = _most(view, scene)
        yield from mtu_problems(view, most=most, why=f" (the underlay carries {scene.mtu})")
        if most < least:
            yield Problem(path="mtu", message=f"an underlay MTU of {scene.mtu} leaves less than {least}")

    def traits(self, view: NetworkView, scene: Scene) -> Traits:
        return Traits(
            mtu=option_int(view, "mtu", 0, 65535) or _most(view, scene),
            onlink=bridged(view),
            inner=(bridge_name(view.id), *_tunnels(view, scene), *_speaker(view)),
            own_ranges=tuple(subnet.cidr for subnet in view.spec.subnets),
            here=(*gateways(view), *own_addresses(view)),
            sealed=encrypted(view.spec.options),
            steered=steered(view),
            direct=scene.link if is_direct(view) else "",
        )

    def overhead(self, options: Mapping[str, str], address: str) -> int:
        return tunnel_overhead(options, address)

    def unreached(self, view: NetworkView, scene: Scene) -> Mapping[HostId, str]:
        return {}

    def fragment(self, view: NetworkView, scene: Scene) -> NetState:
        if encrypted(view.spec.options):
            return wireguard.fragment(view, scene, self.traits(view, scene).mtu, own_addresses(view))
        return _bridged(self, view, scene) if bridged(view) else _routed(self, view, scene)


def bridged(view: NetworkView) -> bool:
    return view.spec.options.get("mode", "routed") == "bridged"


def is_direct(view: NetworkView) -> bool:
    """Whether hosts that share a link do without the tunnel."""
    return view.spec.options.get("direct", "off") == "on" and not encrypted(view.spec.options)


def steered(view: NetworkView) -> bool:
    """Whether a stream's way through bridge, routing and tunnel is on another processor than its sender's:
    half as fast again for bulk, some microseconds for each small packet."""
    return view.spec.options.get("rps", "on") == "on"


def overhead(underlay: str) -> int:
    """What a tunnel adds to each packet, between hosts with addresses like this one."""
    return OVERHEAD_IPV6 if is_ipv6(underlay) else OVERHEAD_IPV4


def _most(view: NetworkView, scene: Scene) -> int:
    """What fits into a packet between hosts, tunnel and all."""
    return scene.mtu - tunnel_overhead(view.spec.options, scene.address)


def _tunnels(view: NetworkView, scene: Scene) -> tuple[str, ...]:
    if encrypted(view.spec.options):
        return wireguard.tunnels(view, scene)
    return (vxlan_name(view.id),)


def tunnel_overhead(options: Mapping[str, str], underlay: str) -> int:
    """As `overhead`, of a network with these options."""
    return wireguard.overhead(underlay) if encrypted(options) else overhead(underlay)


def _links(view: NetworkView, scene: Scene, mtu: int) -> tuple[Link, Link]:
    bridge, alias = bridge_name(view.id), network_alias(view.id)
    spread = bridged(view)
    return (
        Link(name=bridge, kind="bridge", alias=alias, mtu=mtu, mac=gateway_mac(view.id)),
        Link(
            name=vxlan_name(view.id),
            kind="vxlan",
            alias=alias,
            mtu=mtu,
            mac=vtep_mac(scene.host, view.vni),
            master=bridge if spread else "",
            steered=steered(view),
            vxlan=Vxlan(
                vni=view.vni,
                local=scene.address,
                port=scene.vxlan_port,
                learning=spread,
                source_ports=scene.source_ports,
                checksums=scene.checksums,
            ),
        ),
    )


def _sysctls(view: NetworkView) -> dict[str, str]:
    vxlan = vxlan_name(view.id)
    ipv6 = any(is_ipv6(subnet.cidr) for subnet in view.spec.subnets)
    routed_ipv6 = ipv6 and not bridged(view)
    return {
        **bridge_sysctls(view.id, ipv6=ipv6),
        f"net/ipv4/conf/{vxlan}/rp_filter": "2",
        f"net/ipv4/conf/{vxlan}/send_redirects": "0",
        f"net/ipv6/conf/{vxlan}/accept_ra": "0",
        f"net/ipv6/conf/{vxlan}/disable_ipv6": "0" if routed_ipv6 else "1",
    }


def _routed(backend: VxlanBackend, view: NetworkView, scene: Scene) -> NetState:
    bridge, vxlan = bridge_name(view.id), vxlan_name(view.id)
    links = _links(view, scene, backend.traits(view, scene).mtu)
    addresses = {Address(link=bridge, cidr=full_prefix(g)) for g in gateways(view)}
    addresses |= {Address(link=vxlan, cidr=full_prefix(a)) for a in own_addresses(view)}
    addresses |= set(link_addresses(view))
    routes = block_routes(view)
    neighbours: set[Neighbour] = set()
    fdb: set[Fdb] = set()
    entries: list[Hop] = []
    sources = own_sources(view)
    for member in view.peers:
        peer = scene.peers.get(member.host)
        if peer is None:
            continue
        if is_direct(view) and direct.passes(scene, member, peer):
            routes |= set(direct.routes(view, scene, member, peer, sources))
            continue
        mac = vtep_mac(member.host, view.vni)
        fdb.add(Fdb(link=vxlan, mac=mac, remote=peer.address))
        for block in member.blocks:
            hop = next_hop(block, peer, mac)
            neighbours.add(Neighbour(link=vxlan, address=hop, mac=mac))
            if member.number:
                entries.append(Hop(number=member.number, version=6 if is_ipv6(block) else 4, via=hop))
            source = sources[subnet_of(view.spec, block.split("/")[0]).cidr]
            routes.add(Route(destination=block, link=vxlan, via=hop, source=source))
    return NetState(
        links={link.name: link for link in links},
        addresses=frozenset(addresses),
        neighbours=frozenset(neighbours),
        fdb=frozenset(fdb),
        routes=frozenset(routes) | returnpath.routes(vxlan, entries),
        rules=returnpath.rules(entries),
        sysctls=_sysctls(view),
    )


def _speaker(view: NetworkView) -> tuple[str, ...]:
    return (speaker_name(view.id),) if bridged(view) else ()


def next_hop(block: str, peer: Peer, mac: str) -> str:
    """The peer's underlay address; for an IPv6 block its VTEP's link-local one, since the kernel wants
    that."""
    if is_ipv6(block) or is_ipv6(peer.address):
        return link_local(mac)
    return peer.address


def _bridged(backend: VxlanBackend, view: NetworkView, scene: Scene) -> NetState:
    bridge, vxlan, speaker = bridge_name(view.id), vxlan_name(view.id), speaker_name(view.id)
    links = (*_links(view, scene, backend.traits(view, scene).mtu), *_speaker_links(view, scene))
    pairs = zip(gateways(view), view.spec.subnets, strict=True)
    addresses = {
        Address(link=bridge, cidr=f"{gate}/{ipaddress.ip_network(subnet.cidr).prefixlen}")
        for gate, subnet in pairs
    }
    addresses |= {Address(link=speaker, cidr=full_prefix(a)) for a in own_addresses(view)}
    peers = [member for member in view.peers if member.host in scene.peers]
    routes, sources = set[Route](), own_sources(view)
    for block in (block for member in peers for block in member.blocks):
        source = sources[subnet_of(view.spec, block.split("/")[0]).cidr]
        routes.add(Route(destination=block, link=speaker, source=source))
    return NetState(
        links={link.name: link for link in links},
        addresses=frozenset(addresses),
        fdb=frozenset(Fdb(link=vxlan, mac=NO_MAC, remote=scene.peers[p.host].address) for p in peers),
        routes=frozenset(routes),
        sysctls={**_sysctls(view), **_speaker_sysctls(view)},
    )


def _speaker_links(view: NetworkView, scene: Scene) -> tuple[Link, Link]:
    """The gateway is the same on each host, so nobody elsewhere can answer it: what the host itself asks, or
    asks in a container's place (service addresses), goes by a foot with a MAC and an address of its own."""
    speaker, port = speaker_name(view.id), speaker_port_name(view.id)
    mtu = option_int(view, "mtu", 0, 65535) or scene.mtu - overhead(scene.address)
    alias, mac = network_alias(view.id), speaker_mac(scene.host, view.vni)
    return (
        Link(name=speaker, kind="veth", alias=alias, mtu=mtu, mac=mac, peer=port),
        Link(name=port, kind="veth", alias=alias, mtu=mtu, master=bridge_name(view.id), peer=speaker),
    )


def _speaker_sysctls(view: NetworkView) -> dict[str, str]:
    """Two links in one segment: each answers for its own addresses only (arp_ignore, Linux ip-sysctl)."""
    speaker, port = speaker_name(view.id), speaker_port_name(view.id)
    ipv6 = any(is_ipv6(subnet.cidr) for subnet in view.spec.subnets)
    return {
        f"net/ipv4/conf/{bridge_name(view.id)}/arp_ignore": "1",
        f"net/ipv4/conf/{speaker}/arp_ignore": "1",
        f"net/ipv4/conf/{speaker}/rp_filter": "2",
        f"net/ipv4/conf/{speaker}/send_redirects": "0",
        f"net/ipv6/conf/{speaker}/accept_ra": "0",
        f"net/ipv6/conf/{speaker}/disable_ipv6": "0" if ipv6 else "1",
        f"net/ipv6/conf/{port}/disable_ipv6": "1",
    }
