"""From what a host should carry to the state its kernel should be in. Pure.

Invariant: equal plans and endpoints give equal states, on which `diff` finds nothing to do; plans that
contradict themselves are refused whole, with every problem named.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import TypeVar

from msgspec.structs import replace

from model.errors import InvalidInput, NotFound, Problem
from model.ids import short
from model.netoptions import SITE_DRIVERS
from model.view import NetworkView
from net import loadbalance, policychains, shortcuts
from net.backend import BACKENDS
from net.backend.base import Backend, Member, Scene, Traits, is_ipv6
from net.backend.nic import wish_of
from net.diff import Operation, nft_operations
from net.endpoint import InstanceNetwork, endpoint_link, network_of
from net.firewall import tables
from net.host import INGRESS, EndpointRequest, NetworkPlan
from net.hostfirewall import NO_FIREWALL, HostFirewall
from net.naming import bridge_name, vxlan_name
from net.nic.state import Wish
from net.servicechains import Frame, Lane
from net.shaping import limits_of
from net.state import Family, Link, NetState, NftTable, Route
from net.subnets import Range, host_address

V = TypeVar("V")

HOST_SYSCTLS: Mapping[str, str] = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/send_redirects": "0",
}
"""Without forwarding nothing is routed for containers. `all` is OR-ed with each link's own send_redirects
(Linux ip-sysctl), so that other links keep theirs while ours are off.
"""


def scene_of(plan: NetworkPlan) -> Scene:
    return Scene(
        host=plan.host,
        address=plan.address,
        mtu=plan.mtu,
        vxlan_port=plan.vxlan_port,
        source_ports=plan.source_ports,
        link=plan.link,
        onlink=plan.onlink,
        checksums=plan.checksums,
        peers={ident: peer for ident, peer in plan.peers.items() if ident != plan.host},
        addresses=plan.addresses,
        nics=plan.nics,
        behind_nat=plan.behind_nat,
        ends=plan.ends,
    )


def backend_of(view: NetworkView) -> Backend:
    """Raises InvalidInput for an unknown driver."""
    backend = BACKENDS.get(view.spec.driver)
    if backend is None:
        known = ", ".join(sorted(BACKENDS))
        raise InvalidInput(f"unknown network driver {view.spec.driver!r}", hint=f"There are: {known}")
    return backend


def traits_of(view: NetworkView, scene: Scene) -> Traits:
    return backend_of(view).traits(view, scene)


def check(plan: NetworkPlan) -> None:
    """Raises InvalidInput with all problems of the plan; nothing of such a plan is applied."""
    scene = scene_of(plan)
    problems: list[Problem] = []
    for view in plan.networks.values():
        problems += [
            Problem(path=f"{view.spec.name}.{p.path}", message=p.message)
            for p in backend_of(view).validate(view, scene)
        ]
    if not problems:
        problems += _overlaps(plan)
        problems += _shared_vnis(plan)
        problems += loadbalance.problems(plan.services, plan.service_ranges())
    if problems:
        raise InvalidInput.of("networks of this host", tuple(problems))


def desired(
    plan: NetworkPlan,
    instances: Iterable[InstanceNetwork],
    firewall: HostFirewall = NO_FIREWALL,
    served: Iterable[bytes] | None = (),
) -> NetState:
    """Everything that should be on this host, beside that firewall, while these members of services (packed
    addresses) are tracked; None: nobody knows which, so no packet takes a shortcut. The plan has passed
    `check`."""
    scene, known = scene_of(plan), tuple(instances)
    views = [view for _, view in sorted(plan.networks.items())]
    made = [backend_of(view).fragment(view, scene) for view in views]
    fragments = list(made)
    fragments.append(
        NetState(
            links=endpoint_links(plan, known),
            routes=frozenset(_service_routes(plan)),
            sysctls=_host_sysctls(plan, known),
            admissions=frozenset(firewall.admissions),
        )
    )
    limits = [limits_of(e) for i in known for e in i.endpoints if e.network in plan.networks]
    fragments += limits
    return NetState(
        links=_merge("link", (f.links for f in fragments)),
        addresses=frozenset(a for f in fragments for a in f.addresses),
        neighbours=frozenset(n for f in fragments for n in f.neighbours),
        fdb=frozenset(e for f in fragments for e in f.fdb),
        tunnel_peers=frozenset(p for f in fragments for p in f.tunnel_peers),
        routes=frozenset(r for f in fragments for r in f.routes),
        limits=frozenset(limit for f in limits for limit in f.limits),
        detours=frozenset(detour for f in limits for detour in f.detours),
        rules=frozenset(r for f in fragments for r in f.rules),
        admissions=frozenset(a for f in fragments for a in f.admissions),
        sysctls=_merge("sysctl", (f.sysctls for f in fragments)),
        tables={
            **filter_tables(plan, known, firewall),
            **_shortcuts(plan, zip(views, made, strict=True), known, served if firewall.alone else None),
        },
    )


def _shortcuts(
    plan: NetworkPlan,
    made: Iterable[tuple[NetworkView, NetState]],
    known: Iterable[InstanceNetwork],
    served: Iterable[bytes] | None,
) -> Mapping[Family, NftTable]:
    if served is None:
        return {}
    scene, feet = scene_of(plan), [endpoint for instance in known for endpoint in instance.endpoints]
    members = [(Member(view=view, traits=traits_of(view, scene)), state) for view, state in made]
    table = shortcuts.table(members, plan.policies, feet, served)
    return {} if table is None else {"netdev": table}


def service_frame(plan: NetworkPlan, firewall: HostFirewall = NO_FIREWALL) -> Frame:
    """What the table of services depends on besides services."""
    scene = scene_of(plan)
    traits = (traits_of(view, scene) for _, view in sorted(plan.networks.items()))
    return Frame(
        ranges=plan.service_ranges(),
        onlink=tuple(name for t in traits if t.onlink for name in t.inner),
        direct=tuple(_lanes(plan, scene)),
        ports=INGRESS in plan.networks,
        firewall=replace(firewall, admissions=(), unrouted={}, alone=False),
    )


def _lanes(plan: NetworkPlan, scene: Scene) -> Iterable[Lane]:
    for _, view in sorted(plan.networks.items()):
        if link := traits_of(view, scene).direct:
            for subnet in view.spec.subnets:
                yield Lane(link=link, subnet=subnet.cidr, own=host_address(subnet, view.blocks))


def unreached(plan: NetworkPlan) -> tuple[str, ...]:
    """What can't pass between this host and others, by each network: for people. The plan has passed
    `check`."""
    scene = scene_of(plan)
    return tuple(
        f"network {view.spec.name}: {why}"
        for _, view in sorted(plan.networks.items())
        for _, why in sorted(backend_of(view).unreached(view, scene).items())
    )


def own_blocks(plan: NetworkPlan) -> tuple[str, ...]:
    """From which this host's containers have their addresses."""
    return tuple(sorted(block for view in plan.networks.values() for block in view.held))


def around(plan: NetworkPlan, instances: Iterable[InstanceNetwork]) -> NetworkPlan:
    """The plan with no networks but those of these instances: two packet filters made of it differ as those
    of the whole plan do, and cost less on hosts with many networks."""
    used = {endpoint.network for instance in instances for endpoint in instance.endpoints}
    return replace(plan, networks={ident: view for ident, view in plan.networks.items() if ident in used})


def element_changes(
    plan: NetworkPlan, before: InstanceNetwork, after: InstanceNetwork, firewall: HostFirewall = NO_FIREWALL
) -> tuple[Operation, ...]:
    """What one instance's change means to the packet filter, and nothing else."""
    near = around(plan, (before, after))
    now, then = (filter_tables(near, (known,), firewall) for known in (after, before))
    return nft_operations(now, then)


def filter_tables(
    plan: NetworkPlan, instances: Iterable[InstanceNetwork], firewall: HostFirewall = NO_FIREWALL
) -> Mapping[Family, NftTable]:
    """The packet filter's part of `desired`: all that attaching or publishing changes besides a link."""
    scene, known = scene_of(plan), tuple(instances)
    members = [Member(view=v, traits=traits_of(v, scene)) for _, v in sorted(plan.networks.items())]
    endpoints = [e for i in known for e in i.endpoints if e.network in plan.networks and not on_site(plan, e)]
    published = [i.published for i in known if i.published is not None]
    return tables(members, scene, endpoints, published, plan.service_ranges(), plan.policies, firewall)


def on_site(plan: NetworkPlan, endpoint: EndpointRequest) -> bool:
    """Whether what it sends and gets does not pass this host's packet filter."""
    return plan.networks[endpoint.network].spec.driver in SITE_DRIVERS - {"nic"}


def wishes(plan: NetworkPlan, controllers: Sequence[str] = ()) -> tuple[Wish, ...]:
    """The links of this host that are to be ports of its networks' bridges."""
    scene = scene_of(plan)
    nics = (view for _, view in sorted(plan.networks.items()) if view.spec.driver == "nic")
    found = (wish_of(view, scene) for view in nics)
    return tuple(replace(w, controllers=tuple(controllers)) for w in found if w is not None)


def policy_tables(plan: NetworkPlan, instances: Iterable[InstanceNetwork]) -> Mapping[Family, NftTable]:
    """What policies alone put into the packet filter."""
    feet = tuple(
        e for i in instances for e in i.endpoints if e.network in plan.networks and not on_site(plan, e)
    )
    return {
        "inet": policychains.inet(plan.policies, feet),
        "bridge": policychains.bridge(plan.policies, feet),
    }


def endpoint_links(plan: NetworkPlan, instances: Iterable[InstanceNetwork]) -> Mapping[str, Link]:
    """The veths of all endpoints on networks that the host carries."""
    scene = scene_of(plan)
    traits = {ident: traits_of(view, scene) for ident, view in plan.networks.items()}
    links = [
        endpoint_link(
            e,
            plan.networks[e.network],
            traits[e.network],
            instance.namespace,
            plan.vip_ranges.get(e.network, ()),
        )
        for instance in instances
        for e in instance.endpoints
        if e.network in plan.networks and can_stand(traits[e.network])
    ]
    return {link.name: link for link in links}


def can_stand(traits: Traits) -> bool:
    """Whether an endpoint can: the link of the host that it needs is there."""
    return traits.stands and (traits.upper is None or bool(traits.upper.below))


def meant(
    plan: NetworkPlan | None, request: EndpointRequest, namespace: str
) -> tuple[NetworkView, Traits, Link]:
    """An endpoint's network here, and its link. Raises NotFound where the host does not carry that network or
    lacks what it stands on, InvalidInput for an address outside it."""
    view = network_of(plan, request.network)
    assert plan is not None
    traits = traits_of(view, scene_of(plan))
    if not can_stand(traits):
        parent = view.parent or view.spec.options.get("parent", "")
        raise NotFound(f"this host has no link {parent} for network {view.spec.name}")
    ranges = plan.vip_ranges.get(request.network, ())
    return view, traits, endpoint_link(request, view, traits, namespace, ranges)


def loopback_routing(plan: NetworkPlan, instances: Iterable[InstanceNetwork]) -> Mapping[str, str]:
    """Bridges with a published container take answers for 127.0.0.1 (Linux ip-sysctl, route_localnet): only
    so does `localhost:PORT` work on the host. What containers themselves send there is dropped early. Ports
    of services may lead to any network, and by the ingress network's tunnel."""
    needed = {
        endpoint.network
        for instance in instances
        if instance.published is not None
        and any(not port.proxy_protocol for port in instance.published.ports)
        for endpoint in instance.endpoints
    }
    entry = INGRESS in plan.networks
    links = {
        bridge_name(network): entry or network in needed
        for network, view in plan.networks.items()
        if view.spec.driver not in SITE_DRIVERS
    }
    if entry:
        links[vxlan_name(INGRESS)] = True
    return {f"net/ipv4/conf/{link}/route_localnet": str(int(on)) for link, on in links.items()}


def _host_sysctls(plan: NetworkPlan, instances: Iterable[InstanceNetwork]) -> Mapping[str, str]:
    found = {**HOST_SYSCTLS, **loopback_routing(plan, instances)}
    routed = [view for view in plan.networks.values() if view.spec.driver not in SITE_DRIVERS]
    if any(is_ipv6(subnet.cidr) for view in routed for subnet in view.spec.subnets):
        found["net/ipv6/conf/all/forwarding"] = "1"
    return found


def _service_routes(plan: NetworkPlan) -> Iterable[Route]:
    """Service addresses are nobody's: what is sent there is translated before, or refused. The host's own
    packets only come so far if a route leads somewhere, whatever the host's default route is."""
    for text in plan.service_ranges():
        for ident, view in sorted(plan.networks.items()):
            if view.spec.driver in SITE_DRIVERS:
                continue
            if any(is_ipv6(subnet.cidr) == is_ipv6(text) for subnet in view.spec.subnets):
                yield Route(destination=text, link=bridge_name(ident))
                break


def _overlaps(plan: NetworkPlan) -> Iterable[Problem]:
    """One root namespace routes for all networks: their ranges must be apart."""
    ranges: list[tuple[str, Range]] = [
        (view.spec.name, ipaddress.ip_network(subnet.cidr))
        for view in plan.networks.values()
        for subnet in view.spec.subnets
    ]
    own = {view.spec.name for view in plan.networks.values() if view.spec.driver in SITE_DRIVERS}
    ranges += [("service addresses", ipaddress.ip_network(text)) for text in plan.service_ranges()]
    for (name, one), (other, two) in combinations(ranges, 2):
        if one.version == two.version and one.overlaps(two):
            yield Problem(path=f"{name}.subnets", message=f"{one} overlaps {two} of network {other}")
    for name, one in ranges:
        address = ipaddress.ip_address(plan.address)
        if name not in own and address.version == one.version and address in one:
            yield Problem(path=f"{name}.subnets", message=f"{one} contains this host's own address {address}")


def _shared_vnis(plan: NetworkPlan) -> Iterable[Problem]:
    holders: dict[int, str] = {}
    for view in plan.networks.values():
        if view.vni and holders.setdefault(view.vni, view.spec.name) != view.spec.name:
            other = holders[view.vni]
            yield Problem(path=f"{view.spec.name}.vni", message=f"{view.vni} is network {other}'s")


def _merge(what: str, parts: Iterable[Mapping[str, V]]) -> Mapping[str, V]:
    """One mapping of all; two fragments that want one object differently are an error."""
    found: dict[str, V] = {}
    for part in parts:
        for key, value in part.items():
            if found.setdefault(key, value) != value:
                raise InvalidInput(f"two networks of this host want {what} {short(key)} differently")
    return found
