"""What every network driver keeps to, as checks that its author can run: `violations(driver)` is empty. Pure.

The driver is asked about sample networks and hosts, of one family and both, among peers that move and go. Its
answers must be values like any other driver's: the same for the same question, of our own names, whole, and
such that a peer's change costs that peer's entries only.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from model.ids import HostId, NetworkId
from model.spec import NetworkSpec, Subnet
from model.view import NetworkPeer, NetworkView, Peer
from net.backend.base import Backend, Scene, is_ipv6
from net.diff import Op, diff
from net.naming import ALIAS, PREFIXES, bridge_name
from net.state import Address, Fdb, Link, Neighbour, NetState

HOST, NETWORK = HostId("1" * 64), NetworkId("a" * 64)
PEERS = tuple(HostId(digit * 64) for digit in "234")
FOUR, SIX = Subnet(cidr="10.77.0.0/16"), Subnet(cidr="fd00:77::/64")
UNDERLAYS = ("198.18.0.11", "2001:db8::11")
MTU = 1500


def violations(driver: Backend, options: Mapping[str, str] | None = None) -> list[str]:
    """All that is wrong, in words; `options` are those of the networks that it is asked about."""
    found: list[str] = []
    for underlay in UNDERLAYS:
        for subnets in ((FOUR,), (SIX,), (FOUR, SIX)):
            where = f"{'+'.join(s.cidr for s in subnets)} over {underlay}"
            scene, view = _scene(underlay), _view(driver, subnets, dict(options or {}))
            try:
                found += [f"{where}: {text}" for text in _all(driver, view, scene)]
            except Exception as error:  # of a stranger's code; any is a finding
                found.append(f"{where}: raises {error!r}")
    return found


def _all(driver: Backend, view: NetworkView, scene: Scene) -> Iterable[str]:
    if problems := list(driver.validate(view, scene)):
        yield f"refuses a usual network: {'; '.join(str(p.message) for p in problems)}"
        return
    yield from _broken_subnets(driver, view, scene)
    state, traits = driver.fragment(view, scene), driver.traits(view, scene)
    if state != driver.fragment(view, scene) or traits != driver.traits(view, scene):
        yield "the same question has two answers"
    yield from _links(state, view)
    yield from _entries(state, scene)
    if bridge_name(view.id) not in traits.inner or not set(traits.inner) <= set(state.links):
        yield f"traits.inner {traits.inner} are not the network's own links with its bridge"
    if tuple(s.cidr for s in view.spec.subnets) != traits.own_ranges:
        yield "traits.own_ranges are not the network's subnets"
    if traits.direct not in ("", scene.link):
        yield f"traits.direct is {traits.direct!r}, and not the underlay's link"
    addresses = (address.cidr.split("/")[0] for address in state.addresses)
    here = {address for address in addresses if not address.startswith("fe80:")}  # good on its link only
    if here != set(traits.here):
        yield f"traits.here {sorted(traits.here)} are not the addresses that it sets: {sorted(here)}"
    if traits.mtu > MTU - driver.overhead(view.spec.options, scene.address):
        yield f"an mtu of {traits.mtu} does not pass an underlay of {MTU}"
    if driver.features.spans_hosts:
        yield from _peers(driver, view, scene)


def _links(state: NetState, view: NetworkView) -> Iterable[str]:
    for name, link in state.links.items():
        if name != link.name or not name.startswith(PREFIXES) or view.id[:12] not in name or len(name) > 15:
            yield f"link {name} is not named as ours are (net.naming)"
        if not link.alias.startswith(ALIAS):
            yield f"link {name} has no alias of ours, so it would never be taken away"
        if link.foot is not None:
            yield f"link {name} is an endpoint; those are not a driver's"


def _entries(state: NetState, scene: Scene) -> Iterable[str]:
    known = {*state.links, scene.link}
    entries: tuple[Address | Neighbour | Fdb, ...] = (*state.addresses, *state.neighbours, *state.fdb)
    for entry in entries:
        if entry.link not in state.links:
            yield f"{entry} is on no link of the network"
    for route in state.routes:
        if route.link and route.link not in known:
            yield f"route {route.destination} leads by {route.link}, which it does not have"
    if len({route.place for route in state.routes}) != len(state.routes):
        yield "two routes to one destination"
    for path in state.sysctls:
        if not set(path.split("/")) & set(state.links):
            yield f"switch {path} is not of a link of the network"
    if state.tables or state.limits or state.detours:
        yield "packet filter and limits are not a driver's"


def _peers(driver: Backend, view: NetworkView, scene: Scene) -> Iterable[str]:
    """A peer that goes or moves: its own entries alone change, no link and no address."""
    whole = driver.fragment(view, scene)
    for peer in PEERS:
        gone = replace(view, peers=tuple(member for member in view.peers if member.host != peer))
        moved = {**scene.peers, peer: replace(scene.peers[peer], address=_other(scene.address))}
        for other, at, what in ((gone, scene, "goes"), (view, replace(scene, peers=moved), "moves")):
            after = driver.fragment(other, at)
            items = [op.item for op in diff(after, whole) if isinstance(op, Op)]
            if any(isinstance(item, Link) for item in items) or after.addresses != whole.addresses:
                yield f"a peer that {what} changes links or addresses"
            if driver.traits(other, at) != driver.traits(view, scene):
                yield f"a peer that {what} changes the network's traits"
    alone = driver.fragment(replace(view, peers=()), scene)
    parts = [driver.fragment(replace(view, peers=(member,)), scene) for member in view.peers]
    for field in ("routes", "neighbours", "fdb", "rules"):
        together = getattr(alone, field).union(*(getattr(part, field) for part in parts))
        if together != getattr(whole, field):
            yield f"{field} for several peers are not those for each of them"
    for peer in driver.unreached(view, scene):
        if peer not in scene.peers:
            yield f"unreached names {peer[:12]}, who is no peer"


def _broken_subnets(driver: Backend, view: NetworkView, scene: Scene) -> Iterable[str]:
    bad = replace(view, spec=replace(view.spec, subnets=(Subnet(cidr="10.0.0.1/33"),)))
    if not list(driver.validate(bad, scene)):
        yield "takes 10.0.0.1/33 for a subnet: use net.backend.base.subnet_problems"
    wide = replace(view, spec=replace(view.spec, options={**view.spec.options, "mtu": "x"}))
    if not list(driver.validate(wide, scene)):
        yield "takes an mtu of 'x': use net.backend.base.option_int"


def _scene(underlay: str) -> Scene:
    """One peer on the host's link, one elsewhere, one without IPv6 of its own."""
    near, far = (_near(underlay), _other(underlay))
    peers = {
        PEERS[0]: Peer(host=PEERS[0], name="near", address=near, link_local="fe80::2"),
        PEERS[1]: Peer(host=PEERS[1], name="far", address=far, link_local="fe80::3"),
        PEERS[2]: Peer(host=PEERS[2], name="bare", address=_near(near)),
    }
    link = str(ipaddress.ip_network(f"{underlay}/{64 if is_ipv6(underlay) else 24}", strict=False))
    return Scene(
        host=HOST, address=underlay, mtu=MTU, vxlan_port=4789, peers=peers, link="eth0", onlink=(link,)
    )


def _near(address: str) -> str:
    return str(ipaddress.ip_address(address) + 1)


def _other(address: str) -> str:
    """On another link."""
    return "2001:db8:9::9" if is_ipv6(address) else "198.18.9.9"


def _view(driver: Backend, subnets: tuple[Subnet, ...], options: dict[str, str]) -> NetworkView:
    spec = NetworkSpec(name="sample", subnets=subnets, options=options)
    if not driver.features.spans_hosts:
        return NetworkView(id=NETWORK, spec=spec, vni=0, blocks=tuple(s.cidr for s in subnets))
    blocks = [_block(subnets, number) for number in range(1, 2 + len(PEERS))]
    peers = (NetworkPeer(host=host, blocks=found) for host, found in zip(PEERS, blocks[1:], strict=True))
    return NetworkView(id=NETWORK, spec=spec, vni=4097, blocks=blocks[0], peers=tuple(peers))


def _block(subnets: tuple[Subnet, ...], number: int) -> tuple[str, ...]:
    return tuple(
        f"10.77.{number}.0/24" if subnet is FOUR else f"fd00:77::{number:x}00/120" for subnet in subnets
    )
