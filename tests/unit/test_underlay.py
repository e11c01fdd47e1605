"""The underlay as it changes: which kernel messages tell of it, and what the fleet is told."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable

import pytest
from msgspec.structs import replace

from agent.reporter import Reporter
from agent.underlay import Underlay
from controller.reconcile.removal import plan_facts
from controller.snapshot import Cluster
from model.errors import CommandFailed, Unsupported
from model.ids import HostId
from model.records import Host
from model.spec import HostSpec
from model.status import HostFacts
from net.kernel.monitor import messages
from net.kernel.underlay import foreign
from tests.support.waiting import until

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


class Site:
    """A host; `facts` are what the fleet knows of it. Its address is found as `sources` say, one per look,
    the last from then on; `meanwhile` is called while it is looked for."""

    def __init__(self, *sources: str | Exception) -> None:
        self.facts = HostFacts(hostname="a", address="192.0.2.1", mtu=1500)
        self.sources = list(sources)
        self.meanwhile: Callable[[], None] = lambda: None
        self.mtu = 1500

    def source(self, controller: str) -> str:
        self.meanwhile()
        found = self.sources.pop(0) if len(self.sources) > 1 else self.sources[0]
        if isinstance(found, Exception):
            raise found
        return found

    def measure(self, known: HostFacts, address: str) -> HostFacts:
        return replace(known, address=address, mtu=self.mtu)

    async def moved(self, facts: HostFacts) -> None:
        self.facts = facts

    @contextlib.asynccontextmanager
    async def watched(self, every: float = 60.0) -> AsyncIterator[None]:
        underlay = Underlay(
            lambda: self.facts,
            self.moved,
            address="",
            controller="c:1",
            source=self.source,
            measure=self.measure,
            every=every,
        )
        running = asyncio.get_running_loop().create_task(underlay.run())
        try:
            yield
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


@pytest.mark.parametrize(
    "failure",
    [
        Unsupported("this host has no route to c"),
        CommandFailed("the network changed 20 times while it was listed"),
        InterruptedError(4, "interrupted"),
    ],
)
async def test_look_that_failed_is_taken_again_without_a_bell(failure: Exception) -> None:
    site = Site(failure, failure, "192.0.2.9")
    async with site.watched():
        await until(lambda: site.facts.address == "192.0.2.9", deadline=5)


async def test_underlay_is_looked_at_now_and_then_without_a_bell() -> None:
    site = Site("192.0.2.1")
    async with site.watched(every=0.1):
        site.mtu = 1400
        await until(lambda: site.facts.mtu == 1400, deadline=5)
        site.sources = ["192.0.2.7"]
        await until(lambda: site.facts.address == "192.0.2.7", deadline=5)


async def test_facts_that_became_others_while_the_address_was_looked_for_stay() -> None:
    site = Site("192.0.2.9")

    def spare() -> None:
        site.facts = replace(site.facts, checksums=False)
        site.meanwhile = lambda: None

    site.meanwhile = spare
    async with site.watched():
        await until(lambda: site.facts.address == "192.0.2.9", deadline=5)
        assert not site.facts.checksums
