"""The underlay as it changes: which kernel messages tell of it, and what the fleet is told."""

from __future__ import annotations

import socket
import struct

import pytest

from agent.reporter import Reporter
from controller.reconcile.removal import plan_facts
from controller.snapshot import Cluster
from model.ids import HostId
from model.records import Host
from model.spec import HostSpec
from model.status import HostFacts
from net.kernel.monitor import messages
from net.kernel.underlay import foreign

NEWLINK, DELLINK, NEWADDR, NEWROUTE = 16, 17, 20, 24
LOOPBACK = socket.if_nametoindex("lo")


def link_body(name: str) -> bytes:
    """struct ifinfomsg and an IFLA_MTU before its IFLA_IFNAME."""
    text = name.encode() + b"\0"
    padded = text + bytes(-len(text) % 4)
    return bytes(16) + struct.pack("=HHI", 8, 4, 1500) + struct.pack("=HH", 4 + len(text), 3) + padded


@pytest.mark.parametrize(
    ("kind", "body", "rings"),
    [
        (NEWLINK, link_body("eth0"), True),
        (DELLINK, link_body("bond0"), True),
        (NEWLINK, link_body("flv0123456789ab"), False),
        (NEWLINK, link_body("flb0123456789ab"), False),
        (NEWADDR, struct.pack("=BBBBI", 2, 24, 0, 0, LOOPBACK), True),
        (NEWADDR, struct.pack("=BBBBI", 2, 24, 0, 0, 2**31 - 1), False),
        (NEWROUTE, bytes(12), False),
        (NEWLINK, bytes(16), True),
    ],
)
def test_kernel_message_rings_for_what_is_not_ours(kind: int, body: bytes, *, rings: bool) -> None:
    assert foreign(kind, body) is rings


def test_datagram_of_several_messages_is_taken_apart() -> None:
    body = b"abcde"
    one = struct.pack("=IHHII", 16 + len(body), NEWLINK, 0, 0, 0) + body + bytes(3)
    assert list(messages(one * 2)) == [(NEWLINK, 0, body), (NEWLINK, 0, body)]
    assert list(messages(struct.pack("=IHHII", 0, NEWADDR, 0, 0, 0))) == [(NEWADDR, 0, b"")]


async def test_report_carries_facts_once() -> None:
    reporter = Reporter()
    reporter.facts(HostFacts(hostname="a", address="192.0.2.1"))
    reporter.facts(HostFacts(hostname="a", address="192.0.2.2"))
    first = await reporter.next()
    assert first.facts is not None and first.facts.address == "192.0.2.2"
    reporter.taken(first.sequence)
    reporter.facts(first.facts)
    assert (await reporter.next()).sequence == first.sequence + 1


def test_changed_facts_are_recorded_and_equal_ones_write_nothing() -> None:
    ident = HostId("a" * 64)
    host = Host(id=ident, spec=HostSpec(name="a"), facts=HostFacts(hostname="a", address="192.0.2.1"))
    cluster = Cluster().apply([host], (), 1)[0]
    moved = HostFacts(hostname="a", address="192.0.2.9", mtu=1400)
    (item,) = plan_facts(cluster, ident, moved).items
    assert "192.0.2.9" in item.reason
    assert plan_facts(cluster, ident, host.facts).empty
    assert plan_facts(cluster, HostId("b" * 64), moved).empty
