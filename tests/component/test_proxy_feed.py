"""The proxy told what to serve, and what comes back of it, in words for people and for the network code."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent import hostprocesses
from agent.hostprocesses import SupervisedProcesses
from aio.supervisor import Supervisor
from net.proxy.state import FOLDER, Backend, Port, ProxyState
from net.proxying import ProxyFeed
from net.supervise.files import STATE, claim_of
from tests.support.ports import free_port
from tests.support.waiting import until

HERE = "127.0.0.79"


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Path]:
    folder = tmp_path / "run"
    folder.mkdir()
    yield folder
    await hostprocesses.stop(folder)


def state(port: int) -> ProxyState:
    backend = Backend(address=HERE, port=1)
    return ProxyState(ports=(Port(port=port, header="v2", host_ip=HERE, backends=(backend,)),))


async def test_proxy_runs_once_a_port_needs_it_and_says_what_it_cannot_serve(run: Path) -> None:
    feed = ProxyFeed(run, patience=10)
    processes = SupervisedProcesses(run, run / "logs", proxy=feed)
    told: list[frozenset[tuple[str, int]]] = []
    processes.changed = lambda: told.append(processes.unserved)
    port = free_port()
    async with Supervisor("agent") as supervisor:
        supervisor.start("feed", feed.run)
        supervisor.start("processes", processes.run)
        feed.update(ProxyState())
        await until(lambda: claim_of(str(run / "supervise")).pid, deadline=10, what="the supervisor")
        assert not (run / FOLDER / STATE).exists(), "nobody needs a proxy"
        with socket.create_server((HERE, port)):
            feed.update(state(port))
            assert await feed.served() and claim_of(str(run / FOLDER)).pid
            assert "cannot listen" in feed.trouble(port) and not feed.trouble(port + 1)
            await until(lambda: told and told[-1] == {("tcp", port)}, deadline=5, what="a word of it")
            assert processes.unserved == {("tcp", port)}
        await until(lambda: not told[-1] and not feed.trouble(port), deadline=10, what="the port")
        assert not processes.unserved
        feed.update(ProxyState())
        assert await feed.served()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(HERE, port)


async def test_feed_of_a_proxy_that_does_not_run_gives_up_waiting(run: Path) -> None:
    feed = ProxyFeed(run, patience=0.05)
    feed.update(state(1))
    assert not await feed.served() and not feed.trouble(1)
