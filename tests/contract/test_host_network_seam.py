"""What every HostNetwork promises: the fake, and the reconciler on a kernel in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from model.errors import Exhausted, InUse, InvalidInput, NotFound
from net.fake import FakeHostNetwork
from net.host import HostNetwork
from net.kernel.fake import FakeKernel
from net.proxying import FakeProxy
from net.reconciler import NetReconciler
from tests.support.netplans import NETWORK, ONE, TWO, foot, plan, ports, proxied, service


@pytest.fixture(params=["fake", "reconciler"])
async def network(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[HostNetwork]:
    made: HostNetwork = FakeHostNetwork()
    if request.param == "reconciler":
        made = NetReconciler(tmp_path, kernel=FakeKernel(), proxy=FakeProxy())
    await made.start()
    yield made
    await made.close()


async def test_endpoint_says_what_it_is_and_is_found_when_asked_again(network: HostNetwork) -> None:
    await network.apply(plan())
    with pytest.raises(NotFound):
        network.namespace_of(ONE)
    path = await network.open_namespace(ONE)
    assert await network.open_namespace(ONE) == path == network.namespace_of(ONE)
    endpoint = await network.attach(foot(ONE, "10.1.1.9"))
    assert (endpoint.ipv4, endpoint.gateway, endpoint.network_name) == ("10.1.1.9", "10.1.0.1", "web")
    assert endpoint.mac and endpoint.ifname == "eth0"
    assert await network.attach(foot(ONE, "10.1.1.9")) == endpoint
    assert list(network.namespaces()) == [ONE]
    await network.detach(ONE, NETWORK)
    await network.detach(ONE, NETWORK)
    await network.drop_namespace(ONE)
    await network.drop_namespace(ONE)
    assert list(network.namespaces()) == []
    with pytest.raises(NotFound):
        network.namespace_of(ONE)


async def test_unknown_network_and_unknown_instance_are_named(network: HostNetwork) -> None:
    with pytest.raises(NotFound, match="network"):
        await network.attach(foot(ONE, "10.1.1.9"))
    await network.apply(plan())
    with pytest.raises(NotFound, match="111111111111"):
        await network.attach(foot(ONE, "10.1.1.9"))


async def test_port_has_one_holder_at_a_time(network: HostNetwork) -> None:
    await network.apply(plan())
    for instance, address in ((ONE, "10.1.1.9"), (TWO, "10.1.1.10")):
        await network.open_namespace(instance)
        await network.attach(foot(instance, address))
    free = network.free_port("tcp", "")
    assert free >= 32768
    await network.publish(ports(ONE, free))
    assert network.free_port("tcp", "") != free
    with pytest.raises(InUse, match=str(free)):
        await network.publish(ports(TWO, free, host_ip="127.0.0.1"))
    await network.publish(ports(ONE, free + 1))
    await network.publish(ports(TWO, free))
    await network.drop_namespace(TWO)
    await network.unpublish(ONE)
    await network.publish(ports(ONE, free))


async def test_proxied_port_has_one_holder_too(network: HostNetwork) -> None:
    await network.apply(plan())
    for instance, address in ((ONE, "10.1.1.9"), (TWO, "10.1.1.10")):
        await network.open_namespace(instance)
        await network.attach(foot(instance, address))
    await network.publish(ports(ONE, 8080))
    with pytest.raises(InUse, match="8080"):
        await network.publish(proxied(ports(TWO, 8080)))
    await network.publish(proxied(ports(ONE, 8080)))
    with pytest.raises(InUse, match="8080"):
        await network.publish(ports(TWO, 8080))
    await network.unpublish(ONE)
    await network.publish(proxied(ports(TWO, 8080)))


async def test_service_address_outside_the_plans_ranges_is_refused(network: HostNetwork) -> None:
    await network.apply(plan())
    await network.serve({"web": service("10.1.1.9")})
    with pytest.raises(InvalidInput, match=r"services\.bad.*10\.128\.0\.1"):
        await network.serve({"web": None, "bad": service(vip="10.128.0.1")})
    wrong = msgspec.structs.replace(plan(), services={"bad": service(vip="10.128.0.1")})
    with pytest.raises(InvalidInput, match=r"services\.bad"):
        await network.apply(wrong)
    await network.serve({"web": None, "unknown": None})


async def test_endpoint_that_only_ceases_to_be_the_way_out_stays(network: HostNetwork) -> None:
    await network.apply(plan())
    await network.open_namespace(ONE)
    before = await network.attach(foot(ONE, "10.1.1.9"))
    assert list(network.attached(ONE)) == [NETWORK] and list(network.attached(TWO)) == []
    inner = msgspec.structs.replace(foot(ONE, "10.1.1.9"), default_route=False)
    assert await network.attach(inner) == before
    await network.detach(ONE, NETWORK)
    assert list(network.attached(ONE)) == []


async def test_free_port_comes_out_of_the_range_asked_for(network: HostNetwork) -> None:
    await network.apply(plan())
    await network.open_namespace(ONE)
    await network.publish(ports(ONE, 8000))
    assert network.free_port("tcp", "", within=(8000, 8001)) == 8001
    with pytest.raises(Exhausted):
        network.free_port("tcp", "", within=(8000, 8000))


async def test_endpoint_of_a_network_that_the_host_no_longer_carries_can_leave(network: HostNetwork) -> None:
    await network.apply(plan())
    await network.open_namespace(ONE)
    await network.attach(foot(ONE, "10.1.1.9"))
    await network.apply(msgspec.structs.replace(plan(), networks={}))
    await network.detach(ONE, NETWORK)
    assert list(network.attached(ONE)) == []
