"""The network by a bridge over a link, kept by a real reconciler: made, given back, also by a purge."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from model.ids import HostId, NetworkId
from model.spec import NetworkSpec, Subnet
from model.status import Nic
from model.view import NetworkView
from net.host import NetworkPlan
from net.naming import site_bridge_name
from net.reconciler import NetReconciler
from tests.support.nicsite import PARENT, ROUTER, Site, nic_site, run
from tests.support.waiting import until, wait_until

pytestmark = pytest.mark.kernel
LAN = NetworkId("1b" * 32)
BRIDGE = site_bridge_name(LAN)


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
