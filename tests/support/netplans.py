"""A host with one network, and what its containers and services ask of it."""

from __future__ import annotations

import msgspec

from model.ids import HostId, InstanceId
from model.spec import NetworkSpec, Subnet
from model.status import BoundPort
from model.view import NetworkView
from net.host import EndpointRequest, NetworkPlan, PublishRequest
from net.loadbalance import ServiceMember, VirtualService

NETWORK = "a" * 64
ONE, TWO = InstanceId("1" * 64), InstanceId("2" * 64)


def plan() -> NetworkPlan:
    spec = NetworkSpec(name="web", subnets=(Subnet(cidr="10.1.0.0/16"),))
    view = NetworkView(id=NETWORK, spec=spec, vni=4097, blocks=("10.1.1.0/24",))
    networks = {NETWORK: view}
    return NetworkPlan(
        host=HostId("f" * 64),
        address="198.18.0.1",
        mtu=1500,
        vxlan_port=4789,
        networks=networks,
        peers={},
        vip_ranges={NETWORK: ("10.127.0.0/24",)},
    )


def service(*members: str, vip: str = "10.127.0.5") -> VirtualService:
    return VirtualService(ipv4=vip, members=tuple(ServiceMember(ipv4=m) for m in members))


def foot(instance: InstanceId, ipv4: str) -> EndpointRequest:
    return EndpointRequest(instance=instance, network=NETWORK, ifname="eth0", ipv4=ipv4, default_route=True)


def ports(instance: InstanceId, *published: int, host_ip: str = "") -> PublishRequest:
    bound = tuple(BoundPort(target=80, published=p, protocol="tcp", host_ip=host_ip) for p in published)
    return PublishRequest(instance=instance, ipv4="10.1.1.9", ipv6="", ports=bound)


def proxied(request: PublishRequest, **more: str) -> PublishRequest:
    """The same by the PROXY protocol."""
    changed = tuple(msgspec.structs.replace(p, proxy_protocol="v2", **more) for p in request.ports)
    return msgspec.structs.replace(request, ports=changed)
