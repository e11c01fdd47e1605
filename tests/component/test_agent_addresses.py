"""Containers that want addresses, and hosts that have none; over fakes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from agent import endpoints
from model.ids import ServiceId
from model.records import Desired, Instance, ResolvedAttachment
from model.status import Phase
from model.view import NetworkView, View
from net.ipam import Leases
from tests.support.agentlab import BRIDGE, AgentLab, gone, ident, instance, phase
from tests.support.agentnetworks import ONE, network, on, record, stands, view
from tests.support.waiting import until

REPLICA = on(instance(3), ONE, service=ServiceId("5" * 64), service_name="web", slot=1)


def of_blocks(*blocks: str) -> NetworkView:
    return replace(network(ONE, "one", "10.21.0.0/24"), blocks=blocks)


def seen(found: NetworkView, *instances: Instance, revision: int) -> View:
    """With that network alone."""
    return replace(view(*instances, revision=revision), networks={ONE: found})


async def test_an_address_that_is_taken_is_told_and_tried_again_and_given_up_on(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    wanted = ResolvedAttachment(network=ONE, ipv4="10.21.0.2")
    holder, box = on(instance(2), ONE), instance()
    async with lab.agent() as agent:
        await agent.take_view(view(holder, box))
        await phase(agent, 1, Phase.RUNNING)
        await phase(agent, 2, Phase.RUNNING)
        await agent.take_view(view(holder, on(box, BRIDGE, wanted), revision=2))
        await until(lambda: "10.21.0.2" in record(agent).message, deadline=5)
        assert (await phase(agent, 1, Phase.RUNNING)).endpoints[0].network == BRIDGE
        await agent.take_view(view(holder, box, revision=3))
        await stands(agent, BRIDGE)
        assert not record(agent).message
        assert [n for i, n in lab.network.endpoints if i == ident(1)] == [BRIDGE]


async def test_container_whose_address_is_not_given_up_elsewhere_yet_waits_for_it(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    wanted = ResolvedAttachment(network=ONE, ipv4="10.21.0.9")
    box, spread = on(instance(1), wanted), network(ONE, "one", "10.21.0.0/24")
    waiting = replace(spread, blocks=("10.21.0.16/28",), awaited=("10.21.0.9",))
    granted = replace(spread, blocks=("10.21.0.16/28",), singles=("10.21.0.9/32",))
    async with lab.agent() as agent:
        await agent.take_view(replace(view(box), networks={ONE: waiting}))
        await phase(agent, 1, Phase.PREPARING)
        await agent.take_view(replace(view(box, revision=2), networks={ONE: granted}))
        assert (await phase(agent, 1, Phase.RUNNING)).endpoints[0].ipv4 == "10.21.0.9"


async def test_address_that_is_set_aside_is_given_to_nobody_and_told_once_it_is_free(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    one, two = on(instance(1), ONE), on(instance(2), ONE)
    tight = of_blocks("10.21.0.8/31")
    aside = replace(tight, set_aside={"10.21.0.8": "7"})
    async with lab.agent() as agent:
        await agent.take_view(seen(tight, one, revision=1))
        assert (await phase(agent, 1, Phase.RUNNING)).endpoints[0].ipv4 == "10.21.0.8"
        await agent.take_view(replace(view(one, two, revision=2), networks={ONE: aside}))
        assert (await phase(agent, 2, Phase.RUNNING)).endpoints[0].ipv4 == "10.21.0.9"
        assert agent.host_report().vacated == ()
        over = on(instance(1), ONE, desired=Desired.REMOVED, force=True)
        await agent.take_view(replace(view(over, two, revision=3), networks={ONE: aside}))
        await gone(agent, 1)
        report = (await asyncio.wait_for(agent.reporter.next(), 5)).report
        assert report is not None and report.vacated == (f"{ONE}/10.21.0.8/7",)


async def test_container_without_a_free_address_waits_for_another_block_and_says_so(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    one, two = instance(1), instance(2)
    full = of_blocks("10.21.0.8/32")
    first, second = on(one, ONE), on(two, ONE)

    async with lab.agent() as agent:
        await agent.take_view(seen(full, first, revision=1))
        assert (await phase(agent, 1, Phase.RUNNING)).endpoints[0].ipv4 == "10.21.0.8"
        await agent.take_view(seen(full, first, second, revision=2))
        await until(lambda: agent.host_report().short == (ONE,), deadline=5)
        more = of_blocks("10.21.0.8/32", "10.21.0.9/32")
        await agent.take_view(seen(more, first, second, revision=3))
        assert (await phase(agent, 2, Phase.RUNNING)).endpoints[0].ipv4 == "10.21.0.9"
        assert agent.host_report().short == ()


async def test_replica_without_a_free_address_waits_for_as_long_as_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain container fails, for somebody waits for it; both without a word of a timer's."""
    monkeypatch.setattr(endpoints, "GROW_WITHIN", 0.05)
    lab = AgentLab(tmp_path)
    full = of_blocks("10.21.0.8/32")
    first, plain = on(instance(1), ONE), on(instance(2), ONE)

    async with lab.agent() as agent:
        await agent.take_view(seen(full, first, revision=1))
        await phase(agent, 1, Phase.RUNNING)
        await agent.take_view(seen(full, first, plain, REPLICA, revision=2))
        assert "no free IPv4 address" in (await phase(agent, 2, Phase.FAILED)).message
        assert record(agent, 3).phase is Phase.PREPARING and agent.host_report().short == (ONE,)
        book = agent.context.addresses
        over = on(instance(1), ONE, desired=Desired.REMOVED, force=True)
        await agent.take_view(seen(full, over, plain, REPLICA, revision=3))
        await gone(agent, 1)
        assert record(agent, 3).phase is Phase.PREPARING, "what was given back rests"
        book._set(ONE, Leases(resting={"10.21.0.8": agent.context.clock.now() + 0.05}))
        assert (await phase(agent, 3, Phase.RUNNING)).endpoints[0].ipv4 == "10.21.0.8"
        assert agent.host_report().short == ()


async def test_replica_that_waits_for_an_address_can_be_removed(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    full = of_blocks("10.21.0.1/32")
    async with lab.agent() as agent:
        await agent.take_view(seen(full, REPLICA, revision=1))
        await until(lambda: agent.host_report().short == (ONE,), deadline=5)
        over = on(instance(3), ONE, desired=Desired.REMOVED, force=True)
        await agent.take_view(seen(full, over, revision=2))
        await gone(agent, 3)
        assert agent.host_report().short == ()
    assert lab.leaks() == {}


async def test_replica_on_a_full_network_of_its_host_waits_a_second_for_an_address(tmp_path: Path) -> None:
    """Nothing fails meanwhile, so no pause before another try is earned."""
    lab = AgentLab(tmp_path)
    full = of_blocks("10.21.0.8/32")
    first = on(instance(1), ONE)

    async with lab.agent() as agent:
        await agent.take_view(seen(full, first, revision=1))
        await phase(agent, 1, Phase.RUNNING)
        over = on(instance(1), ONE, desired=Desired.REMOVED, force=True)
        await agent.take_view(seen(full, over, REPLICA, revision=2))
        assert (await phase(agent, 3, Phase.RUNNING, deadline=5)).endpoints[0].ipv4 == "10.21.0.8"
        assert not any("failed" in line for line in agent.workers[ident(3)].story)
