"""The network by a bridge over a link, kept by a real reconciler: made, given back, also by a purge."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from model.ids import HostId, InstanceId, NetworkId
from model.policy import Party, PolicySpec, Selector
from model.spec import NetworkSpec, Subnet
from model.status import Nic
from model.view import NetworkView
from net.host import EndpointRequest, NetworkPlan
from net.naming import site_bridge_name
from net.policy import HostPolicies, Place, endpoint_key, host_policies
from net.reconciler import NetReconciler
from tests.support.nicsite import HOST, PARENT, ROUTER, Site, nic_site, run
from tests.support.policed import asks, silence
from tests.support.talkers import Talker, server
from tests.support.waiting import until, wait_until

pytestmark = pytest.mark.kernel
LAN = NetworkId("1b" * 32)
BRIDGE = site_bridge_name(LAN)
NAMES = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((sys.argv[1], 53))
print("up", flush=True)
while True: s.sendto(b"name", s.recvfrom(99)[1])
"""


@pytest.fixture
def site() -> Iterator[Site]:
    with nic_site() as made:
        made.equip()
        wait_until(lambda: "tentative" not in run("ip", "address"), deadline=5)
        made.first = made.listing()
        yield made


@pytest.fixture
async def network(site: Site, tmp_path: Path) -> AsyncIterator[NetReconciler]:
    made = NetReconciler(tmp_path)
    await made.start()
    yield made
    await made.remove_all()
    await made.close()
    assert not is_port() and site.first in ("", site.listing())


def plan(*, parent: str = PARENT) -> NetworkPlan:
    spec = NetworkSpec(
        name="lan",
        driver="nic",
        subnets=(Subnet(cidr="198.18.9.0/24", gateway=ROUTER, ip_range="198.18.9.128/25"),),
        options={"parent": PARENT},
    )
    view = NetworkView(id=LAN, spec=spec, vni=0, blocks=("198.18.9.128/28",), parent=parent)
    return NetworkPlan(
        host=HostId("a" * 64),
        address="198.51.100.1",
        mtu=1500,
        vxlan_port=4789,
        networks={LAN: view},
        peers={},
        nics=(Nic(name=PARENT),),
    )


def is_port() -> bool:
    return f"master {BRIDGE}" in run("ip", "link", "show", "dev", PARENT)


async def test_a_link_becomes_a_port_and_goes_back_with_its_network(
    site: Site, network: NetReconciler
) -> None:
    await network.apply(plan())
    await until(is_port, deadline=5)
    await until(lambda: site.listing(BRIDGE) == site.first.replace("LINK:1", "LINK"), deadline=5)
    count = network.mutations
    await network.apply(plan())
    assert network.mutations == count and site.pings(ROUTER)
    await network.apply(replace(plan(), networks={}))
    assert not is_port() and site.listing() == site.first
    assert BRIDGE not in run("ip", "link")


async def test_a_purge_gives_the_link_back(site: Site, network: NetReconciler) -> None:
    await network.apply(plan())
    await until(is_port, deadline=5)
    await network.remove_all()
    assert not is_port() and site.listing() == site.first
    assert "fl" not in run("ip", "-o", "-br", "link").replace("link", "")


async def test_a_link_that_comes_later_is_moved_then(site: Site, network: NetReconciler) -> None:
    site.first = ""  # a link that gets another name gives its addresses other labels
    run("ip", "link", "set", PARENT, "name", "away")
    await network.apply(plan())
    await until(lambda: network.troubles, deadline=5)
    assert "no link eth1" in network.troubles[0]
    run("ip", "link", "set", "away", "name", PARENT)
    await until(is_port, deadline=5)
    await until(lambda: not network.troubles, deadline=5)


async def test_policies_judge_machines_of_the_site_and_the_host_and_names_are_told(
    site: Site, network: NetReconciler
) -> None:
    """The container's host is asked for names at a port of the bridge, its own addresses are the bridge's."""
    instance, own, resolver = InstanceId("c" * 64), "198.18.9.140", "198.18.9.128"
    web = Party(name="web", network=LAN, network_name="lan", ipv4=own)
    place = Place(network=LAN, name="lan", subnets=("198.18.9.0/24",), parties=(web,))
    shut = PolicySpec(name="shut", selects=Selector(container="web"), ingress=(), egress=())
    await network.apply(plan())
    await until(is_port, deadline=5)
    space, router = await network.open_namespace(instance), f"/run/netns/{site.router}"
    await network.attach(
        EndpointRequest(instance=instance, network=LAN, ifname="eth0", ipv4=own, default_route=True)
    )
    servers = [server(space, "web"), server("/proc/self/ns/net", "host"), server(router, "router")]
    servers.append(Talker("/proc/self/ns/net", NAMES, resolver))
    try:
        for bridge_nf in (0, 1):
            run("sh", "-c", f"echo {bridge_nf} > /proc/sys/net/bridge/bridge-nf-call-iptables")
            await network.police(HostPolicies())
            assert asks(router, own) and asks(router, own, "udp")
            assert all(asks(space, target) for target in (HOST, ROUTER))
            await network.police(host_policies([shut], {endpoint_key(instance, LAN): web}, {LAN: place}))
            assert silence(router, own) and silence(router, own, "udp"), bridge_nf
            assert all(silence(space, target) for target in (HOST, ROUTER)), bridge_nf
            assert asks(space, resolver, "udp", 53), f"names are everybody's, {bridge_nf}"
            assert asks("/proc/self/ns/net", own), f"its host always reaches it, {bridge_nf}"
    finally:
        for one in servers:
            one.close()
    await network.drop_namespace(instance)
