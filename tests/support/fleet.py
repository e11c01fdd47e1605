"""A fleet in memory: a real controller over a store, and fake agents on links that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from itertools import count

from aio.clock import Clock, VirtualClock
from controller.controller import Controller
from controller.options import Options
from controller.pki import SKEW, Authority
from controller.store.base import Store, Txn
from controller.store.memory import MemoryStore
from model.ids import HostId
from model.records import Host
from model.spec import HostSpec
from tests.support.agents import FakeAgent, FakeHost, MemoryChannel


def counted_ids(prefix: str = "") -> Iterator[str]:
    """Ids that differ early, so that short ones are unique too."""
    for number in count(1):
        yield f"{prefix}{number:06x}".ljust(64, "0")


class Fleet:
    """Everything that a test steers. `run` starts the controller; agents connect with `connect`."""

    def __init__(self, store: Store, clock: Clock, options: Options | None = None, seed: str = "a") -> None:
        self.store = store
        self.clock = clock
        self.options = options or Options(advertise="192.0.2.254:7420")
        self.hosts: dict[HostId, FakeHost] = {}
        self.agents: dict[HostId, FakeAgent] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.agent: type[FakeAgent] = FakeAgent
        self._ids = counted_ids(seed)
        self._controller: Controller | None = None

    @property
    def controller(self) -> Controller:
        assert self._controller is not None, "the controller is down"
        return self._controller

    @property
    def up(self) -> bool:
        return self._controller is not None

    async def start(self) -> None:
        authority = Authority.new("fleet")
        made = Controller(self.store, self.clock, lambda: next(self._ids), lambda _: authority, self.options)
        await made.__aenter__()
        self._controller = made

    async def kill(self) -> None:
        """End the controller without a word: its links die, its store stays."""
        made, self._controller = self.controller, None
        await made._children.close()
        for agent in self.agents.values():
            agent.channel.closed = agent.channel.peer.closed = True
            agent.channel._bell.set()
            agent.channel.peer._bell.set()
        self.agents.clear()
        await self._reap()

    async def admit(self, *hosts: FakeHost, **labels: str) -> None:
        """Put hosts into the store as `join` would."""
        for host in hosts:
            self.hosts[host.id] = host
            record = Host(
                id=host.id, spec=HostSpec(name=host.facts.hostname, labels=labels), facts=host.facts
            )
            epoch = self.controller.committer._epoch
            outcome = await self.store.commit(Txn(puts=(record,), epoch=epoch))
            assert isinstance(outcome, int), outcome

    async def connect(self, host: HostId, certificate: str = "", *, made: float = 0.0) -> FakeAgent:
        """Start the agent of a host, its certificate `made` then; the session lives in the background."""
        near, far = MemoryChannel.pair()
        agent = self.agent(self.hosts[host], near)
        self.agents[host] = agent
        self._spawn(self.controller.serve_session(host, certificate, far, made - SKEW.total_seconds()))
        self._spawn(agent.run())
        return agent

    def disconnect(self, host: HostId) -> None:
        """The agent's process ends; its containers go on."""
        agent = self.agents.pop(host)
        agent.channel.closed = agent.channel.peer.closed = True
        agent.channel._bell.set()
        agent.channel.peer._bell.set()

    def _spawn(self, work: object) -> None:
        task = asyncio.get_running_loop().create_task(work)  # type: ignore[arg-type]
        self.tasks.add(task)

    async def _reap(self) -> None:
        done = [task for task in self.tasks if task.done()]
        for task in done:
            self.tasks.discard(task)
            task.result()

    async def close(self) -> None:
        for host in list(self.agents):
            self.disconnect(host)
        if self.up:
            made, self._controller = self.controller, None
            await made.__aexit__(None, None, None)
        pending = list(self.tasks)
        if pending:
            _, alive = await asyncio.wait(pending, timeout=5)
            for task in alive:
                task.cancel()
            if alive:
                await asyncio.wait(alive)
        for task in pending:
            if not task.cancelled():
                task.result()


@contextlib.asynccontextmanager
async def fleet(
    *hosts: FakeHost,
    store: Store | None = None,
    clock: Clock | None = None,
    options: Options | None = None,
    connect: bool = True,
) -> AsyncIterator[Fleet]:
    """A running fleet with these hosts in session."""
    made = Fleet(store or MemoryStore(), clock or VirtualClock(), options)
    await made.start()
    try:
        await made.admit(*hosts)
        if connect:
            for host in hosts:
                agent = await made.connect(host.id)
                await asyncio.wait_for(agent.welcomed.wait(), 5)
        yield made
    finally:
        await made.close()
