"""Endpoints as values: what an instance's foot on a network is, on the host and inside. Pure."""

from __future__ import annotations

import ipaddress

from msgspec.structs import replace

from model.errors import NotFound
from model.ids import NetworkId, short
from model.netoptions import SITE_DRIVERS
from model.spec import Struct
from model.status import Endpoint
from model.view import NetworkView
from net.backend.base import Traits, full_prefix
from net.host import INGRESS, EndpointRequest, NetworkPlan, PublishRequest
from net.naming import answer_table, bridge_name, endpoint_alias, endpoint_mac, veth_name
from net.state import Foot, Link
from net.subnets import gateway, resolvers, subnet_of


class InstanceNetwork(Struct):
    """All that one instance has of the network: what its state file in the run folder holds."""

    namespace: str
    endpoints: tuple[EndpointRequest, ...] = ()
    published: PublishRequest | None = None

    def endpoint(self, network: str) -> EndpointRequest | None:
        return next((e for e in self.endpoints if e.network == network), None)


def network_of(plan: NetworkPlan | None, network: str) -> NetworkView:
    """Raises NotFound for a network that this host does not carry."""
    view = None if plan is None else plan.networks.get(network)
    if view is None:
        raise NotFound(f"this host carries no network {short(network)}")
    return view


def mac_of(request: EndpointRequest) -> str:
    return request.mac or endpoint_mac(request.instance, request.network)


def endpoint_link(
    request: EndpointRequest,
    view: NetworkView,
    traits: Traits,
    namespace: str,
    service_ranges: tuple[str, ...] = (),
) -> Link:
    """The veth pair of an endpoint, or its one link on a link of the host. Services of the network answer in
    ranges behind its gateways. Raises InvalidInput for an address outside the network's subnets."""
    addresses = [a for a in (request.ipv4, request.ipv6) if a]
    subnets = [subnet_of(view.spec, address) for address in addresses]
    gateways = tuple(str(gateway(subnet)) for subnet in subnets)
    cidrs = (
        f"{address}/{ipaddress.ip_network(subnet.cidr).prefixlen}" if traits.onlink else full_prefix(address)
        for address, subnet in zip(addresses, subnets, strict=True)
    )
    open_ = not view.spec.internal or view.id == INGRESS
    upper, defaults = traits.upper, tuple(g for g in gateways if _leads(request, g)) if open_ else ()
    if upper is not None and not open_:
        gateways = ()  # what came in from beyond the site's router has no way back
    if upper is not None and "l3" in upper.mode:
        gateways, defaults = (), tuple(_everywhere(g) for g in defaults)
    return Link(
        name=veth_name(request.instance, request.network),
        kind="veth" if upper is None else upper.kind,
        alias=endpoint_alias(request.instance, request.network),
        mtu=traits.mtu,
        master=(traits.bridge or bridge_name(request.network)) if upper is None else "",
        steered=traits.steered,
        below="" if upper is None else upper.below,
        mode="" if upper is None else upper.mode,
        foot=Foot(
            namespace=namespace,
            ifname=request.ifname,
            mac=mac_of(request),
            addresses=tuple(cidrs),
            gateways=gateways,
            defaults=defaults,
            ranges=(*(() if traits.onlink else (subnet.cidr for subnet in subnets)), *service_ranges),
            onlink=traits.onlink,
            replies_only=view.id == INGRESS,
            beside=traits.beside if upper is not None else {},
            table=answer_table(view.id) if view.spec.driver in SITE_DRIVERS else 0,
            sysctls={_path(name, request.ifname): value for name, value in request.sysctls.items()},
        ),
    )


def removal(request: EndpointRequest, view: NetworkView | None, namespace: str) -> tuple[Link, ...]:
    """The links that an endpoint had, as they are to be removed; both that it can have had where its network
    is not known any more."""
    name = veth_name(request.instance, request.network)
    alias = endpoint_alias(request.instance, request.network)
    veth = Link(name=name, kind="veth", alias=alias, mtu=0)
    inside = Foot(namespace=namespace, ifname=request.ifname, mac="", addresses=())
    upper = Link(name=name, kind="macvlan", alias=alias, mtu=0, foot=inside)
    if view is None:
        return veth, upper
    return (upper,) if view.spec.driver in SITE_DRIVERS - {"nic"} else (veth,)


def same_but_ways(one: EndpointRequest, other: EndpointRequest) -> bool:
    """Whether two requests differ in nothing but what can be changed under a container: in being a way out,
    and in their limits."""
    return _bare(one) == _bare(other)


def _bare(request: EndpointRequest) -> EndpointRequest:
    return replace(request, default_route=False, default_route6=False, bandwidth_in=0, bandwidth_out=0)


def _leads(request: EndpointRequest, gateway: str) -> bool:
    return request.default_route6 if ":" in gateway else request.default_route


def _everywhere(gateway: str) -> str:
    """As a way out of a link where nobody is asked for: ipvlan's layer 3 (Linux networking/ipvlan)."""
    return "::/0" if ":" in gateway else "0.0.0.0/0"


def _path(name: str, ifname: str) -> str:
    """`net.ipv4.conf.IFNAME.log_martians` → the file's path; an interface's name may have dots itself."""
    return name.replace(".", "/").replace("/IFNAME/", f"/{ifname}/")


def endpoint_status(request: EndpointRequest, view: NetworkView) -> Endpoint:
    """What is reported of it."""
    address = request.ipv4 or request.ipv6
    return Endpoint(
        network=NetworkId(request.network),
        network_name=view.spec.name,
        ifname=request.ifname,
        ipv4=request.ipv4,
        ipv6=request.ipv6,
        mac=mac_of(request),
        gateway=str(gateway(subnet_of(view.spec, address))) if address else "",
        resolver=next(iter(resolvers(view)), "") if view.spec.driver in SITE_DRIVERS else None,
    )
