"""The Backend protocol: what a kind of network needs on one host, described and not done. Pure.

A backend answers with a NetState fragment of links, addresses, neighbours, FDB entries and routes, and says
how its networks behave (`Traits`); one diff and one kernel driver do the rest. Invariant: two fragments never
name the same object with different contents (`net.plan` checks).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Protocol

from model.errors import Problem
from model.ids import HostId
from model.spec import Struct
from model.status import Nic
from model.view import NetworkView, Peer
from net.naming import bridge_name, gateway_mac, link_local
from net.state import Address, LinkKind, LocalEnd, NetState, Route
from net.subnets import gateway, host_address, subnet_of

LEAST_MTU, LEAST_MTU_IPV6, MOST_MTU = 576, 1280, 65535
"""Of networks over several hosts (RFC 791; RFC 8200, section 5)."""


class Scene(Struct):
    """Where a network is to be: this host, its underlay, and the hosts around it."""

    host: HostId
    address: str
    mtu: int
    vxlan_port: int
    peers: dict[HostId, Peer]
    checksums: bool = True
    """Tunnels leave them to the network card."""
    source_ports: tuple[int, int] = (0, 0)
    """Of tunnels; zeros: the kernel's choice."""
    behind_nat: bool = False
    ends: Mapping[str, tuple[LocalEnd, ...]] = {}
    """By network id, of the encrypted ones."""
    addresses: tuple[str, ...] = ()
    """All of this host's own."""
    nics: tuple[Nic, ...] = ()
    """The host's own links that can carry networks."""
    link: str = ""
    """The underlay's, which carries `address`."""
    onlink: tuple[str, ...] = ()
    """Ranges that are reached on it without a router."""


class Upper(Struct):
    """How endpoints stand on a link of the host, where they are no veths."""

    kind: LinkKind
    below: str
    """Empty: this host has no such link now, so they can't stand."""
    mode: str


class Traits(Struct):
    """How a network's containers see it, and what the packet filter must know."""

    mtu: int
    onlink: bool
    """Containers hold the subnet on-link; otherwise /32 and /128, everything by the gateway."""
    inner: tuple[str, ...]
    """Links whose traffic belongs to this network; among them all may pass."""
    own_ranges: tuple[str, ...]
    """Ranges whose addresses are this network's."""
    here: tuple[str, ...]
    """Addresses in those ranges that are this host's own, without prefix length."""
    sealed: bool = False
    """Nothing of it may be on the underlay but what its `inner` links encrypt."""
    steered: bool = False
    """Of the endpoints' links: see `net.state.Link`."""
    upper: Upper | None = None
    bridge: str = ""
    """Of the endpoints' links, where it is not the network's own kind."""
    stands: bool = True
    """The host has the link that the network needs."""
    asked: bool = True
    """Its containers can ask this host for names."""
    beside: Mapping[str, str] = {}
    """The host's own addresses that its containers reach by its foot on the network: address → by which."""
    direct: str = ""
    """The underlay's link, where its packets pass to and from other hosts there as they are."""


class Features(Struct):
    """What the fleet must know of a driver's networks where no host is at hand."""

    spans_hosts: bool = True
    """Hosts share its subnets, and each has blocks of them; else each host has all of them for itself."""
    speaks: bool = True
    """Each host has an address of its own in its blocks (`net.subnets.host_address`)."""
    options: tuple[str, ...] = ()
    """Beside mtu and icc, which every network has. Of drivers that `model.netoptions` does not list."""


class Member(Struct):
    """A network with its traits here, as the packet filter sees it."""

    view: NetworkView
    traits: Traits


class Backend(Protocol):
    @property
    def features(self) -> Features: ...

    def validate(self, view: NetworkView, scene: Scene) -> Iterable[Problem]:
        """All that is wrong with the network's options and subnets here."""
        ...

    def traits(self, view: NetworkView, scene: Scene) -> Traits: ...

    def fragment(self, view: NetworkView, scene: Scene) -> NetState: ...

    def overhead(self, options: Mapping[str, str], address: str) -> int:
        """Bytes that are added to each packet of a network with these options, between hosts with underlay
        addresses like this one."""
        ...

    def unreached(self, view: NetworkView, scene: Scene) -> Mapping[HostId, str]:
        """Peers that its packets can't get to from here, whatever is healthy, and why."""
        ...


def is_ipv6(text: str) -> bool:
    return ":" in text


def full_prefix(address: str) -> str:
    """`address` as /32 or /128."""
    return f"{address}/{128 if is_ipv6(address) else 32}"


def gateways(view: NetworkView) -> tuple[str, ...]:
    """Of each subnet, without prefix length, in the spec's order."""
    return tuple(str(gateway(subnet)) for subnet in view.spec.subnets)


def own_addresses(view: NetworkView) -> tuple[str, ...]:
    """What the host itself is called in a network: one address of each family's blocks."""
    found = (host_address(subnet, view.blocks) for subnet in view.spec.subnets)
    return tuple(address for address in found if address)


def own_sources(view: NetworkView) -> Mapping[str, str]:
    """The host's own address by subnet: found once, not for each peer."""
    return {subnet.cidr: host_address(subnet, view.blocks) for subnet in view.spec.subnets}


def block_routes(view: NetworkView) -> set[Route]:
    """Of a routed network: what is the host's own leads to its bridge; what nobody has is unreachable."""
    routes = {Route(destination=subnet.cidr) for subnet in view.spec.subnets}
    return routes | {
        Route(
            destination=block,
            link=bridge_name(view.id),
            source=str(gateway(subnet_of(view.spec, block.split("/")[0]))),
        )
        for block in view.held
    }


def link_addresses(view: NetworkView) -> Iterable[Address]:
    """The bridge's own on its link. The kernel makes it once, and who takes it away leaves the host without a
    source to ask for containers' MACs (RFC 4861, 7.2.2): they are forgotten within a minute."""
    if any(is_ipv6(subnet.cidr) for subnet in view.spec.subnets):
        yield Address(link=bridge_name(view.id), cidr=f"{link_local(gateway_mac(view.id))}/64")


def bridge_sysctls(network: str, *, ipv6: bool) -> dict[str, str]:
    """Of a bridge that routes for containers: sources that don't belong are refused (RFC 3704), no redirects,
    no addresses from routers that containers may play; IPv6 is off where the network has none."""
    name = bridge_name(network)
    return {
        f"net/ipv4/conf/{name}/rp_filter": "1",
        f"net/ipv4/conf/{name}/send_redirects": "0",
        f"net/ipv6/conf/{name}/accept_ra": "0",
        f"net/ipv6/conf/{name}/disable_ipv6": "0" if ipv6 else "1",
    }


def subnet_problems(view: NetworkView) -> Iterable[Problem]:
    """Subnets that can't be a container network's, and shares that lie outside them."""
    wholes = []
    for index, subnet in enumerate(view.spec.subnets):
        try:
            whole = ipaddress.ip_network(subnet.cidr)
            gateway(subnet)
        except ValueError as error:
            yield Problem(path=f"subnets[{index}].cidr", message=str(error))
            continue
        if whole.num_addresses < 2:
            yield Problem(path=f"subnets[{index}].cidr", message=f"{subnet.cidr} has no room for a gateway")
        wholes.append(whole)
    for block in view.held:
        inner = ipaddress.ip_network(block)
        if not any(w.version == inner.version and inner.subnet_of(w) for w in wholes):  # type: ignore[arg-type]
            yield Problem(path="blocks", message=f"{block} lies in none of the network's subnets")


def mtu_problems(
    view: NetworkView, *, least: int = LEAST_MTU, most: int = MOST_MTU, why: str = ""
) -> Iterable[Problem]:
    """Of the option `mtu`, where links carry `most`; with IPv6 it is 1280 at least (RFC 8200, section 5)."""
    ipv6 = any(is_ipv6(subnet.cidr) for subnet in view.spec.subnets)
    try:
        option_int(view, "mtu", LEAST_MTU_IPV6 if ipv6 else least, most)
    except ValueError as error:
        yield Problem(path="options.mtu", message=f"{error}{why}")


def option_int(view: NetworkView, name: str, least: int, most: int) -> int | None:
    """An option as a number, None when it isn't set. Raises ValueError with the range."""
    text = view.spec.options.get(name, "")
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        raise ValueError(f"{text!r} is no number from {least} to {most}")
    return int(text)
