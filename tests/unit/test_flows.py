"""Which tracked connections are stale once containers and their published ports changed."""

from __future__ import annotations

import ipaddress

import msgspec
import pytest

from model.ids import InstanceId
from model.status import BoundPort
from net.endpoint import InstanceNetwork
from net.flows import UDP, Change, Connection, change, is_stale
from net.host import EndpointRequest, PublishRequest

HOST, CLIENT, HERE, THERE = "198.18.0.11", "198.18.0.13", "10.1.1.9", "10.1.1.10"
PORT = BoundPort(target=53, published=8053, protocol="udp")
WEB = BoundPort(target=80, published=8080, protocol="tcp")


def instance(address: str, *ports: BoundPort) -> InstanceNetwork:
    foot = EndpointRequest(instance=InstanceId("a" * 64), network="n", ifname="eth0", ipv4=address)
    published = PublishRequest(instance=foot.instance, ipv4=address, ipv6="", ports=ports)
    return InstanceNetwork(namespace="/n", endpoints=(foot,), published=published if ports else None)


def packed(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def connection(member: str, *, member_port: int = 53, protocol: int = UDP, port: int = 8053) -> Connection:
    return Connection(
        protocol=protocol,
        client=packed(CLIENT),
        target=packed(HOST),
        port=port,
        member=packed(member),
        member_port=member_port,
        local=True,
    )


NOBODY = connection(HOST, member_port=8053)


@pytest.mark.parametrize(
    ("before", "after", "found", "stale"),
    [
        (instance(HERE), instance(HERE, PORT), NOBODY, True),
        (instance(HERE), instance(HERE, PORT), connection(HERE), False),
        (instance(HERE), instance(HERE, PORT), connection(THERE), True),
        (instance(HERE), instance(HERE, PORT), connection(HERE, member_port=54), True),
        (instance(HERE, PORT), instance(HERE), connection(HERE), True),
        (instance(HERE, PORT), instance(HERE), NOBODY, False),
        (instance(HERE, WEB), instance(HERE), connection(HERE, member_port=80, protocol=6, port=8080), False),
        (instance(HERE, WEB), InstanceNetwork(namespace=""), connection(HERE, protocol=6, port=8080), True),
        (instance(HERE, WEB), instance(THERE, WEB), connection(HERE, protocol=6, port=8080), True),
        (instance(HERE), InstanceNetwork(namespace=""), connection(HERE, protocol=6, port=8080), False),
        (instance(HERE), instance(HERE, PORT), msgspec.structs.replace(NOBODY, local=False), False),
        (instance(HERE), instance(HERE, PORT), msgspec.structs.replace(NOBODY, port=9), False),
    ],
    ids=[
        *("there before the container", "right already", "another container's", "another target port"),
        *("of a port given up", "the host's own", "TCP stands", "TCP to nobody", "TCP to an old address"),
        *("a container without ports", "passing through", "another port"),
    ],
)
def test_connection_is_stale_when_it_leads_elsewhere_than_the_next_would(
    before: InstanceNetwork, after: InstanceNetwork, found: Connection, stale: bool
) -> None:
    assert is_stale(found, change(before, after), (after,)) is stale


@pytest.mark.parametrize(
    ("port", "stale"),
    [
        (PORT, False),
        (msgspec.structs.replace(PORT, host_ip=HOST), False),
        (msgspec.structs.replace(PORT, host_ip="0.0.0.0"), False),
        (msgspec.structs.replace(PORT, host_ip="198.18.0.12"), True),
        (msgspec.structs.replace(PORT, host_ip="::"), True),
        (msgspec.structs.replace(PORT, allow=(CLIENT,)), False),
        (msgspec.structs.replace(PORT, allow=("192.0.2.0/24",)), True),
    ],
)
def test_connection_is_kept_by_a_port_that_is_published_for_it(port: BoundPort, stale: bool) -> None:
    assert is_stale(connection(HERE), Change(ports=frozenset({8053})), (instance(HERE, port),)) is stale


def test_port_on_one_address_goes_before_one_on_all() -> None:
    one = instance(HERE, msgspec.structs.replace(PORT, host_ip=HOST))
    every = instance(THERE, msgspec.structs.replace(PORT, host_ip="0.0.0.0"))
    asked = Change(ports=frozenset({8053}))
    assert not is_stale(connection(HERE), asked, (one, every))
    assert is_stale(connection(THERE), asked, (one, every))


def test_address_that_somebody_has_again_is_nobodys_loss() -> None:
    gone = change(instance(HERE, WEB), InstanceNetwork(namespace=""))
    assert gone.gone == {packed(HERE)} and packed(HERE) in gone.marks
    assert not is_stale(connection(HERE, protocol=6, port=8080), gone, (instance(HERE),))


def test_change_of_nothing_asks_for_no_look() -> None:
    assert not change(instance(HERE, PORT, WEB), instance(HERE, PORT, WEB))
    assert not change(instance(HERE), instance(THERE))
    assert change(instance(HERE, PORT), instance(HERE)).marks == (b"\x1fu",)
