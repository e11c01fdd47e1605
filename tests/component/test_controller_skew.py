"""Agents of other releases than the controller's."""

from __future__ import annotations

import asyncio

import pytest

from model.records import HostState
from model.wire import OLDEST, PROTOCOL
from tests.support.agents import FakeAgent, MemoryChannel, make_host
from tests.support.fleet import fleet
from tests.support.waiting import until


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        (
            PROTOCOL + 1,
            f"speaks protocol {PROTOCOL + 1}, this controller {PROTOCOL}: upgrade the controller first",
        ),
        (
            OLDEST - 1,
            f"speaks protocol {OLDEST - 1}, this controller {OLDEST} to {PROTOCOL}: upgrade the host",
        ),
    ],
)
async def test_agent_that_the_controller_can_not_speak_with_is_told_to_wait_and_people_why(
    protocol: int, words: str
) -> None:
    async with fleet(make_host(1)) as f:
        [(ident, host)] = f.hosts.items()
        await f.agents[ident].channel.close()
        await until(lambda: not f.controller.sessions.connected(ident), deadline=5)
        host.protocol = protocol
        near, far = MemoryChannel.pair()
        agent = FakeAgent(host, near)
        f._spawn(agent.run())
        await asyncio.wait_for(f.controller.serve_session(ident, "", far), 5)
        await until(lambda: agent.goodbye, deadline=5)
        assert agent.goodbye is not None and agent.goodbye.retry and words in agent.goodbye.reason
        assert f"turned away: its agent {words}" in f.controller.get_host("host1").conditions
        assert any(words in reason for reason in f.controller.why("host1").reasons)

        host.protocol = PROTOCOL
        await f.connect(ident)
        await until(lambda: f.controller.get_host("host1").host.state is HostState.READY, deadline=5)
        assert not any("turned away" in line for line in f.controller.get_host("host1").conditions)


@pytest.mark.parametrize("protocol", range(OLDEST, PROTOCOL + 1))
async def test_agent_of_each_protocol_that_is_spoken_is_welcome(protocol: int) -> None:
    host = make_host(1, release="0.1.0-0123456789ab")
    host.protocol = protocol
    async with fleet(host) as f:
        await until(lambda: f.controller.get_host("host1").connected, deadline=5)
        assert f.controller.get_host("host1").host.facts.release == "0.1.0-0123456789ab"
