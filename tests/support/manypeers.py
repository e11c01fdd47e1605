"""A host of a large fleet: its plan with so many peers on one routed overlay of both families."""

from __future__ import annotations

import ipaddress

from model.ids import HostId, NetworkId
from model.spec import NetworkSpec, Subnet
from model.view import NetworkPeer, NetworkView, Peer
from net.host import NetworkPlan

NETWORK = NetworkId("1" * 64)
SPEC = NetworkSpec(name="big", subnets=(Subnet(cidr="10.128.0.0/12"), Subnet(cidr="fd00:1::/64")))
FIRST4, FIRST6 = ipaddress.IPv4Address("10.128.1.0"), ipaddress.IPv6Address("fd00:1::1:0")
UNDERLAY = ipaddress.IPv4Address("198.19.0.0")


def host(number: int) -> HostId:
    return HostId(f"{number:064x}")


def large_plan(address: str, peers: int, *, moved: int = 0) -> NetworkPlan:
    """Peer `moved`, from 1 on, has another underlay address than it has for 0."""
    members, known = [], {}
    for number in range(1, peers + 1):
        blocks = f"{FIRST4 + 256 * number}/24", f"{FIRST6 + 256 * number}/120"
        members.append(NetworkPeer(host=host(number), blocks=blocks))
        at = UNDERLAY + number + (20_000 if number == moved else 0)
        known[host(number)] = Peer(host=host(number), name=f"h{number}", address=str(at))
    view = NetworkView(
        id=NETWORK, spec=SPEC, vni=4097, blocks=(f"{FIRST4}/24", f"{FIRST6}/120"), peers=tuple(members)
    )
    return NetworkPlan(
        host=host(0), address=address, mtu=1500, vxlan_port=4789, networks={NETWORK: view}, peers=known
    )
