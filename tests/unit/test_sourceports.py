"""Whose source ports stay: what is published is taken, and the same number is its holder's."""

from __future__ import annotations

from model.ids import InstanceId
from model.status import BoundPort
from net import sourceports
from net.host import PublishRequest


def published(*ports: BoundPort, ipv4: str = "10.0.0.5", ipv6: str = "") -> PublishRequest:
    return PublishRequest(instance=InstanceId("a" * 64), ipv4=ipv4, ipv6=ipv6, ports=ports)


def test_every_published_port_is_taken_whoever_may_ask_it() -> None:
    some = BoundPort(target=80, published=8080, protocol="udp", allow=("192.0.2.0/24",))
    one = BoundPort(target=53, published=53, protocol="tcp", host_ip="192.0.2.1")
    found = sourceports.sets([published(some), published(one)])
    assert set(found["taken"].elements) == {"udp . 8080", "tcp . 53"}


def test_holder_keeps_the_port_that_has_the_same_number_in_both_families() -> None:
    same = BoundPort(target=51820, published=51820, protocol="udp")
    other = BoundPort(target=80, published=8080, protocol="tcp")
    found = sourceports.sets(
        [published(same, other, ipv6="fd00::5"), published(same, ipv4="", ipv6="fd00::6")]
    )
    assert set(found["kept4"].elements) == {"10.0.0.5 . udp . 51820"}
    assert set(found["kept6"].elements) == {"fd00::5 . udp . 51820", "fd00::6 . udp . 51820"}


def test_nothing_published_leaves_every_port_free() -> None:
    assert not any(found.elements for found in sourceports.sets([]).values())
