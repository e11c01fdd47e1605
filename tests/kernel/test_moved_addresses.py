"""An address that goes from host to host: who talked with it goes on at once, in both modes and families."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from model.ids import InstanceId
from net.host import EndpointRequest
from tests.support.nethosts import NetHosts, net_hosts, network_id, overlay

pytestmark = pytest.mark.kernel
FIXED4, FIXED6 = "10.129.1.99", "fd00:1::1f0"
"""In the first host's share."""


@pytest.fixture(scope="module")
def three() -> Iterator[NetHosts]:
    with net_hosts(3, "flma") as hosts:
        yield hosts


def pings(hosts: NetHosts, client: InstanceId, target: str, wait: float = 1) -> bool:
    words = ("busybox", "ping6" if ":" in target else "ping", "-c1", f"-W{wait:g}", target)
    return hosts.hosts[1].inside(client, *words, check=False).returncode == 0


def stand(hosts: NetHosts, number: int, instance: InstanceId) -> None:
    hosts.hosts[number].call("open_namespace", instance)
    hosts.hosts[number].call(
        "attach",
        EndpointRequest(instance=instance, network=network_id(1), ifname="eth0", ipv4=FIXED4, ipv6=FIXED6),
    )


@pytest.mark.parametrize("mode", ["routed", "bridged"])
def test_an_address_is_reached_on_the_host_it_went_to_at_once(three: NetHosts, mode: str) -> None:
    three.singles = {2: (f"{FIXED4}/32", f"{FIXED6}/128")}
    three.carry({1: overlay("a", 1, ipv6=True, mode=mode)})
    client = three.container(1, 1, 1)
    before, after = InstanceId("5" * 64), InstanceId("6" * 64)
    stand(three, 2, before)
    assert all(pings(three, client, target) for target in (FIXED4, FIXED6))
    three.hosts[2].call("drop_namespace", before)
    three.singles = {3: three.singles[2]}
    stand_at = time.monotonic()
    for number in three.hosts:
        three.apply(number)
    stand(three, 3, after)
    assert all(pings(three, client, target) for target in (FIXED4, FIXED6)), "the first packet is answered"
    assert time.monotonic() - stand_at < 5
    for number, instance in ((1, client), (3, after)):
        three.hosts[number].call("drop_namespace", instance)
    three.singles = {}
    three.carry({})
