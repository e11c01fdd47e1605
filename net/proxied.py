"""From published ports to what the proxy of this host serves. Pure.

A port that tells the PROXY protocol is in no nft map: the proxy listens where clients ask, on all addresses
or the one that was named, and the container's own address is its backend. Containers of internal networks
reach no other network by a published port; so they reach none of these.
"""

from __future__ import annotations

from collections.abc import Iterable

from model.status import BoundPort
from net.host import NetworkPlan, PublishRequest
from net.proxy.state import Backend, Port, ProxyState


def proxied(request: PublishRequest | None) -> tuple[BoundPort, ...]:
    """Those of its ports that the proxy serves."""
    return () if request is None else tuple(port for port in request.ports if port.proxy_protocol)


def proxy_state(requests: Iterable[PublishRequest], plan: NetworkPlan | None) -> ProxyState:
    """All of one host. Equal requests in any order give equal states."""
    ports = [
        Port(
            port=port.published,
            header=port.proxy_protocol,
            host_ip=port.host_ip,
            backends=(Backend(address=request.ipv4 or request.ipv6, port=port.target),),
            allow=port.allow,
        )
        for request in requests
        for port in proxied(request)
        if port.proxy_protocol
    ]
    shut = () if plan is None else (v.spec for v in plan.networks.values() if v.spec.internal)
    return ProxyState(
        ports=tuple(sorted(ports, key=lambda port: (port.port, port.host_ip))),
        deny=tuple(sorted(subnet.cidr for spec in shut for subnet in spec.subnets)),
    )
