"""Networks on the site's own: containers stand on a link of the host, among the site's machines. Pure.

Each endpoint is a macvlan or ipvlan link (ip-link(8)) inside its container's namespace, on the parent link.
Such links don't reach the parent itself, so the host gets one too, its shim: with an address of its own out
of the network's, and routes to this host's blocks. The host's own addresses and routes stay as they are; its
containers reach those addresses by the shim. Modes that keep endpoints apart (private, passthru) keep the
host apart too: there is no shim then, and nobody to ask for names.

`eth1.20` is a VLAN of eth1. Where the host has no link of that name, one of ours is made, the same for all
networks that stand on it, and goes with the last of them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Literal

from model.errors import Problem
from model.ids import HostId
from model.netoptions import mode as mode_of
from model.parents import tagged
from model.spec import Subnet
from model.status import Nic
from model.view import NetworkView
from net.backend.base import (
    MOST_MTU,
    Features,
    Scene,
    Traits,
    Upper,
    full_prefix,
    is_ipv6,
    mtu_problems,
    option_int,
    subnet_problems,
)
from net.naming import network_alias, shim_mac, shim_name, vlan_alias, vlan_name
from net.state import Address, Link, NetState, Route
from net.subnets import host_address, host_addresses, reaches_host, subnet_of

DEFAULT_MTU = 1500
BROADCASTING = ("bridge", "vepa", "l2")
"""Modes in which neighbours are found by asking all (ARP, ND)."""


class SiteBackend:
    def __init__(self, kind: Literal["macvlan", "ipvlan"]) -> None:
        self._kind = kind
        self.features = Features()

    def validate(self, view: NetworkView, scene: Scene) -> Iterable[Problem]:
        yield from subnet_problems(view)
        yield from mtu_problems(view)

    def traits(self, view: NetworkView, scene: Scene) -> Traits:
        shim = has_shim(view)
        own = host_addresses(view) if shim else ()
        ways = {is_ipv6(address): address for address in reversed(own)}
        mine = is_ipv6(scene.address)
        return Traits(
            mtu=self._mtu(view, scene),
            onlink=True,
            inner=(shim_name(view.id),) if shim else (),
            own_ranges=(),
            here=own,
            upper=Upper(kind=self._kind, below=below(view, scene), mode=link_mode(view)),
            asked=bool(own),
            beside={scene.address: ways[mine]} if mine in ways else {},
        )

    def overhead(self, options: Mapping[str, str], address: str) -> int:
        return 0

    def unreached(self, view: NetworkView, scene: Scene) -> Mapping[HostId, str]:
        return {}

    def fragment(self, view: NetworkView, scene: Scene) -> NetState:
        under = below(view, scene)
        if not under:
            return NetState()
        links = {}
        if under == vlan_name(view.parent):
            links[under] = vlan_link(view, scene)
        if not has_shim(view):
            return NetState(links=links)
        name = shim_name(view.id)
        links[name] = Link(
            name=name,
            kind=self._kind,
            alias=network_alias(view.id),
            mtu=self._mtu(view, scene),
            mac=shim_mac(scene.host, view.id) if self._kind == "macvlan" else "",
            below=under,
            mode=link_mode(view),
        )
        return NetState(
            links=links,
            addresses=frozenset(Address(link=name, cidr=full_prefix(a)) for a in host_addresses(view)),
            routes=frozenset(_routes(view, scene, name)),
            sysctls=_sysctls(view, name),
        )

    def _mtu(self, view: NetworkView, scene: Scene) -> int:
        asked = option_int(view, "mtu", 0, MOST_MTU)
        nic = nic_of(view, scene)
        carried = nic.mtu if nic is not None else DEFAULT_MTU
        return min(asked, carried) if asked else carried


def link_mode(view: NetworkView) -> str:
    """As `net.state.Link` has it."""
    mode = mode_of(view.spec.driver, view.spec.options)
    if view.spec.driver == "ipvlan":
        return f"{mode} {view.spec.options.get('flag', 'bridge')}"
    return mode


def has_shim(view: NetworkView) -> bool:
    return reaches_host(view.spec) and bool(host_addresses(view))


def below(view: NetworkView, scene: Scene) -> str:
    """The link that endpoints stand on: the parent, or the VLAN of ours; empty where neither can be."""
    names = {nic.name for nic in scene.nics}
    if view.parent in names:
        return view.parent
    base, vlan = tagged(view.parent)
    return vlan_name(view.parent) if vlan and base in names else ""


def nic_of(view: NetworkView, scene: Scene) -> Nic | None:
    base, _ = tagged(view.parent)
    by_name = {nic.name: nic for nic in scene.nics}
    return by_name.get(view.parent) or by_name.get(base)


def vlan_link(view: NetworkView, scene: Scene) -> Link:
    """Equal for all networks on it."""
    base, vlan = tagged(view.parent)
    nic = nic_of(view, scene)
    return Link(
        name=vlan_name(view.parent),
        kind="vlan",
        alias=vlan_alias(view.parent),
        mtu=nic.mtu if nic is not None else DEFAULT_MTU,
        below=base,
        vlan=vlan,
    )


def _routes(view: NetworkView, scene: Scene, shim: str) -> Iterable[Route]:
    """To what this host's containers may have. Those of other hosts it reaches as it reaches the site's other
    machines; where it has no address of its own among them, by the shim too."""
    away = [block for peer in view.peers for block in peer.blocks if not _is_there(view, scene, block)]
    for block in (*view.held, *away):
        source = host_address(_subnet(view, block), view.blocks)
        if source:
            yield Route(destination=block, link=shim, source=source)


def _subnet(view: NetworkView, block: str) -> Subnet:
    return subnet_of(view.spec, block.split("/")[0])


def _is_there(view: NetworkView, scene: Scene, block: str) -> bool:
    """Whether the host has an address of its own in the subnet of that block."""
    whole = ipaddress.ip_network(_subnet(view, block).cidr)
    own = (ipaddress.ip_address(address) for address in (scene.address, *scene.addresses))
    return any(address.version == whole.version and address in whole for address in own)


def _sysctls(view: NetworkView, shim: str) -> dict[str, str]:
    """It answers for its own addresses only (arp_ignore, Linux ip-sysctl), or the site's machines would take
    it for the host; what other hosts' shims send comes by the parent's way."""
    ipv6 = any(is_ipv6(subnet.cidr) for subnet in view.spec.subnets)
    return {
        f"net/ipv4/conf/{shim}/arp_ignore": "1",
        f"net/ipv4/conf/{shim}/rp_filter": "2",
        f"net/ipv4/conf/{shim}/send_redirects": "0",
        f"net/ipv6/conf/{shim}/accept_ra": "0",
        f"net/ipv6/conf/{shim}/disable_ipv6": "0" if ipv6 else "1",
    }
