"""When a host makes checksums in tunnels by itself, and when it takes that back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from agent.journal import Journal
from agent.offload import WORDS, OffloadProbe, remembered
from aio.mailbox import Bell
from model.ids import HostId
from model.status import HostFacts
from model.view import NetworkPeer, NetworkView, Peer, View
from net.host import Drift
from net.kernel.offload import try_ways
from tests.support.netplans import NETWORK, plan
from tests.support.waiting import until

Way = tuple[str, str]
FACTS = HostFacts(hostname="n1", address="192.0.2.1", warnings=("old runc",))
PEERS = {HostId(f"{n}" * 64): f"192.0.2.{n}" for n in (2, 3)}


def view() -> View:
    known = plan().networks[NETWORK]
    peers = tuple(NetworkPeer(host=h, blocks=(f"10.1.{n}.0/24",)) for n, h in enumerate(PEERS, start=2))
    network: NetworkView = replace(known, peers=peers)
    return View(
        networks={network.id: network}, peers={h: Peer(host=h, name=h, address=a) for h, a in PEERS.items()}
    )


class Lab:
    """`broken`: peers on the way to which the card spoils checksums; `hopeless`: whatever this host does;
    `silent`: who does not answer at all."""

    def __init__(self, journal: Journal, facts: HostFacts = FACTS) -> None:
        self.context: Any = SimpleNamespace(view=view(), host=HostId("1" * 64), facts=facts, boot_id="boot")
        self.broken: set[str] = set()
        self.hopeless: set[str] = set()
        self.silent: set[str] = set()
        self.asked: list[list[str]] = []
        self.settled: list[bool] = []
        self.bell = Bell()
        self.told: list[Drift] = []
        self.probe = OffloadProbe(
            self.context, journal, self.bell, self.resettle, self.try_ways, self.told.append
        )

    async def resettle(self, facts: HostFacts) -> None:
        self.context.facts = facts
        self.settled.append(facts.checksums)

    async def try_ways(self, ways: Sequence[Way]) -> Mapping[Way, bool]:
        self.asked.append(sorted(target for _, target in ways))
        bad = self.hopeless | (self.broken if self.context.facts.checksums else set())
        return {way: way[1] not in bad for way in ways if way[1] not in self.silent}

    async def look(self) -> bool:
        return await self.probe._look()


@pytest.fixture
async def journal(tmp_path: Path) -> Any:
    made = await Journal.open(tmp_path / "journal.db")
    yield made
    await made.close()


TWO, THREE = "10.1.2.0", "10.1.3.0"


async def test_each_way_is_tried_once_and_again_when_its_peer_has_moved(journal: Journal) -> None:
    lab = Lab(journal)
    assert not await lab.look() and not await lab.look()
    assert lab.asked == [[TWO, THREE]] and lab.settled == []
    moved = {h: replace(p, address="192.0.2.99") if n else p for n, (h, p) in enumerate(view().peers.items())}
    lab.context.view = replace(view(), peers=moved)
    assert not await lab.look()
    assert lab.asked[1:] == [[THREE]]


async def test_each_way_is_tried_again_when_this_hosts_link_is_another_or_has_another_mtu(
    journal: Journal,
) -> None:
    lab = Lab(journal)
    await lab.look()
    for facts in (replace(FACTS, mtu=9000), replace(FACTS, mtu=9000, link="bond0")):
        lab.context.facts = facts
        await lab.look()
    assert lab.asked == [[TWO, THREE]] * 3


async def test_a_peer_that_left_and_came_again_is_tried_anew(journal: Journal) -> None:
    lab = Lab(journal)
    await lab.look()
    network = replace(lab.context.view.networks[NETWORK], peers=())
    lab.context.view = replace(view(), networks={NETWORK: network})
    await lab.look()
    lab.context.view = view()
    await lab.look()
    assert lab.asked == [[TWO, THREE]] * 2


async def test_a_card_that_spoils_is_spared_and_that_is_remembered(journal: Journal) -> None:
    lab = Lab(journal)
    lab.broken = {TWO}
    await lab.look()
    assert lab.settled == [False] and lab.context.facts.warnings == ("old runc", WORDS)
    assert [drift.object for drift in lab.told] == ["tunnels to 10.1.2.0"]
    again = remembered(journal, "boot", FACTS)
    assert again == lab.context.facts
    assert remembered(journal, "another boot", FACTS) == FACTS
    assert remembered(journal, "boot", replace(FACTS, address="192.0.2.9")).checksums
    later = Lab(journal, again)
    await later.look()
    assert later.asked == [], "nothing is to be found out any more"


async def test_what_does_not_help_is_taken_back(journal: Journal) -> None:
    lab = Lab(journal)
    lab.hopeless = {TWO}
    await lab.look()
    assert lab.settled == [False, True] and lab.context.facts == FACTS
    assert remembered(journal, "boot", FACTS) == FACTS
    await lab.look()
    assert lab.settled == [False, True], "and not tried again"


async def test_who_is_silent_is_asked_again(journal: Journal) -> None:
    lab = Lab(journal)
    lab.silent = {THREE}
    assert await lab.look() and await lab.look()
    assert lab.asked == [[TWO, THREE], [THREE]]
    running = asyncio.get_running_loop().create_task(lab.probe.run())
    lab.bell.ring()
    await until(lambda: len(lab.asked) == 3, deadline=5)
    lab.silent.clear()
    await until(lambda: len(lab.asked) == 4, deadline=5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.parametrize(
    ("from_turn", "spoils", "found"),
    [
        (0, False, True),
        (1, False, True),
        (2, False, None),
        (9, False, None),
        (0, True, False),
        (1, True, False),
    ],
)
async def test_a_peer_that_begins_to_answer_is_no_spoilt_checksum(
    from_turn: int, spoils: bool, found: bool | None
) -> None:
    """It answers from that question on, and `spoils` says whether only what has no checksum."""
    way, turns = ("10.1.1.0", "10.1.2.0"), iter(range(9))

    async def ask(ways: Sequence[Way], bare: bool) -> Mapping[Way, bool]:
        answers = next(turns) >= from_turn and (bare or not spoils)
        return dict.fromkeys(ways, answers)

    heard = await try_ways([way], ask)
    assert heard.get(way) is found
