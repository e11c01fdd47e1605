"""What a host reaches already, out of its route tables, and what of it a new network may take."""

from __future__ import annotations

from typing import Any

import pytest

from agent.hostroutes import Reached, measure, parse
from controller.addressing import resolve_subnets
from controller.snapshot import Cluster
from model.errors import Exhausted, InvalidInput
from model.ids import HostId
from model.records import Host
from model.spec import HostSpec, NetworkSpec, Subnet
from model.status import HostFacts

IPV4 = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010012C6\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000012C6\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
tun0\t0000000A\t010012C6\t0003\t0\t0\t0\t000000FF\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
flb0123\t00001DAC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
*\t0000800A\t00000000\t0200\t0\t0\t0\t0000FFFF\t0\t0\t0
"""
IPV6 = """\
fd990000000000000000000000000000 40 {z} 00 {z} 00000100 00000001 00000000 00000001 eth0
fd010000000000000000000000000000 40 {z} 00 fd990000000000000000000000000001 00000400 1 0 00000003 eth0
fd020000000000000000000000000000 40 {z} 00 {z} 00000100 00000001 00000000 00000001 flb0123
fe800000000000000000000000000000 40 {z} 00 {z} 00000100 00000001 00000000 00000001 eth0
ff000000000000000000000000000000 08 {z} 00 {z} 00000100 00000001 00000000 00000001 eth0
{z} 00 {z} 00 fd990000000000000000000000000001 00000400 00000001 00000000 00000003 eth0
{z} 00 {z} 00 {z} ffffffff 00000001 00000000 00200200 lo
""".replace("{z}", "0" * 32)


def cluster() -> Cluster:
    facts: dict[str, Any] = {"links": ("198.18.0.0/24", "172.17.0.0/16"), "routes": ("10.0.0.0/8",)}
    host = Host(
        id=HostId("1" * 64),
        spec=HostSpec(name="n1"),
        facts=HostFacts(hostname="n1", address="198.18.0.11", **facts),
        revision=1,
    )
    return Cluster().apply((host,), (), 1)[0]


def test_tables_give_what_is_on_links_and_behind_gateways_but_nothing_of_ours() -> None:
    assert parse(IPV4, IPV6) == Reached(
        links=("198.18.0.0/24", "172.17.0.0/16", "fd99::/64"), routes=("10.0.0.0/8", "fd01::/64")
    )
    assert parse("", "nonsense\n") == Reached()
    assert isinstance(measure(), Reached)


@pytest.mark.parametrize(
    "cidr", ["198.18.0.0/16", "198.18.0.128/25", "172.17.0.0/16", "10.0.0.0/8", "10.0.0.0/7"]
)
def test_subnet_that_takes_a_route_is_refused(cidr: str) -> None:
    known = cluster()
    spec = NetworkSpec(name="x", subnets=(Subnet(cidr=cidr),))
    with pytest.raises(InvalidInput, match=r"which n1 has a route to|contains the host address"):
        resolve_subnets(spec, known, vni=1, hosts=known.hosts.values())


def test_subnet_within_what_is_behind_a_gateway_is_the_users_choice_and_never_the_pools() -> None:
    known = cluster()
    spec = NetworkSpec(name="x", subnets=(Subnet(cidr="10.44.0.0/16"),))
    assert resolve_subnets(spec, known, vni=1, hosts=known.hosts.values()) == spec.subnets
    with pytest.raises(Exhausted):
        resolve_subnets(NetworkSpec(name="x"), known, vni=1, hosts=known.hosts.values())
