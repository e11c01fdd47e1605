"""From published ports to what the proxy of this host serves. Pure.

A port that tells the PROXY protocol is in no nft map: the proxy listens where clients ask, on all addresses
or the one that was named, and the container's own address is its backend. The container sees the proxy's
address, so what nft judges elsewhere by the client's is judged by the proxy: containers of internal networks
reach no other network by a published port, and policies let in whom they let in.
"""

from __future__ import annotations

from collections.abc import Iterable

from model.status import BoundPort
from net.endpoint import InstanceNetwork
from net.host import NetworkPlan, PublishRequest
from net.loadbalance import VirtualService
from net.policy import HostPolicies, endpoint_key
from net.proxy.state import Backend, Port, ProxyState


def proxied(request: PublishRequest | None) -> tuple[BoundPort, ...]:
    """Those of its ports that the proxy serves."""
    return () if request is None else tuple(port for port in request.ports if port.proxy_protocol)


def told(service: VirtualService | None) -> bool:
    """Whether the proxy serves some of its ports."""
    return service is not None and any(port.proxy_protocol for port in service.ports)


def proxy_state(
    instances: Iterable[InstanceNetwork],
    plan: NetworkPlan | None,
    services: Iterable[VirtualService] = (),
) -> ProxyState:
    """All of one host, `services` those whose ports are open here. Equal instances in any order give equal
    states."""
    policies, known = HostPolicies() if plan is None else plan.policies, tuple(instances)
    ports = [port for instance in known for port in _ports(instance, policies)]
    ports += (port for service in services for port in _ports_of(service, known, policies))
    shut = () if plan is None else (v.spec for v in plan.networks.values() if v.spec.internal)
    return ProxyState(
        ports=tuple(sorted(ports, key=lambda port: (port.port, port.host_ip))),
        deny=tuple(sorted(subnet.cidr for spec in shut for subnet in spec.subnets)),
    )


def _ports(instance: InstanceNetwork, policies: HostPolicies) -> Iterable[Port]:
    request = instance.published
    if request is None:
        return
    address = request.ipv4 or request.ipv6
    network = next((e.network for e in instance.endpoints if address in (e.ipv4, e.ipv6)), "")
    policed = policies.endpoints.get(endpoint_key(request.instance, network))
    for port in request.ports:
        if port.proxy_protocol:
            among = let_in(policies, policed.ingress, port.target) if policed else None
            yield Port(
                port=port.published,
                header=port.proxy_protocol,
                host_ip=port.host_ip,
                backends=(Backend(address=address, port=port.target, among=among),),
                allow=port.allow,
            )


def _ports_of(
    service: VirtualService, instances: Iterable[InstanceNetwork], policies: HostPolicies
) -> Iterable[Port]:
    """A service's, which lead to its ready members on all hosts. Those here are judged here; the others by
    their own hosts, to which this host is the client."""
    feet = {a: e for i in instances for e in i.endpoints for a in (e.ipv4, e.ipv6) if a}
    for port in service.ports:
        if not port.proxy_protocol:
            continue
        backends = []
        for member in service.members:
            address = member.inner4 or member.ipv4 or member.inner6 or member.ipv6
            foot = feet.get(address)
            policed = policies.endpoints.get(endpoint_key(foot.instance, foot.network)) if foot else None
            among = let_in(policies, policed.ingress, port.target) if policed else None
            backends.append(Backend(address=address, port=port.target, among=among))
        yield Port(
            port=port.published, header=port.proxy_protocol, backends=tuple(backends), allow=port.allow
        )


def let_in(policies: HostPolicies, class_: str, port: int) -> tuple[str, ...] | None:
    """Ranges of clients that a class lets in at a tcp port; None where it is open to all."""
    if not class_:
        return None
    found: list[str] = []
    for digit in "46":
        sets = policies.classes[class_]
        found += sets[f"{class_}-a{digit}"].elements
        for element in sets[f"{class_}-p{digit}"].elements:
            span, protocol, ports = element.split(" . ")
            first, _, last = ports.partition("-")
            if protocol == "tcp" and int(first) <= port <= int(last or first):
                found.append(span)
    return tuple(sorted(found))
