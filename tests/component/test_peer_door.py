"""A host's port for other hosts, when another process has it for a while."""

from __future__ import annotations

import socket
from pathlib import Path

from msgspec.structs import replace

from agent.servepeers import PeerDoor
from aio.mailbox import Bell
from aio.supervisor import Supervisor
from image.registry.source import NoSource
from tests.support.agentlab import AgentLab
from tests.support.peerhosts import Fleet, PeerHost
from tests.support.waiting import until


async def test_a_port_that_was_in_use_is_taken_once_it_is_free(tmp_path: Path) -> None:
    """As at a restart: the address stays the same."""
    host = PeerHost(Fleet(tmp_path), 1, NoSource())
    async with AgentLab(tmp_path).agent() as agent:
        agent.context.facts = replace(agent.context.facts, address="127.0.0.1")
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            door = PeerDoor(agent, host.server, host.called, port, frozenset, Bell())
            await door.open()
            assert agent.context.facts.peer_port == 0
        supervisor = Supervisor("test")
        try:
            supervisor.start("peers", door.run)
            await until(lambda: agent.context.facts.peer_port == port, deadline=15)
        finally:
            await supervisor.close()
            await door.close()
    await host.source.close()
