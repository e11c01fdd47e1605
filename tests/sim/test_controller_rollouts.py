"""Seeded simulation of updates: replicas get well, ill and worse at random, and controllers come and go.

At each commit: with start-first no replica that is ready is given up before its successor is, with
stop-first no more than `parallelism` of them are not ready for it. Once all get well, the update is done, or
it is paused and says why, and goes on when it is asked to. FLOTA_SIM_SEEDS and FLOTA_SIM_SEED as in
test_controller_faults.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable

import pytest

from aio.clock import VirtualClock
from controller.condition import status_of
from controller.liveness import Policy
from controller.options import Options
from controller.snapshot import Cluster
from controller.store.base import Conflict, Txn
from controller.store.memory import MemoryStore
from model.api import UpdateService
from model.records import Desired, Revision
from model.spec import (
    Attachment,
    ContainerSpec,
    HealthCheck,
    NetworkSpec,
    Replicated,
    ServiceSpec,
    TcpProbe,
    UpdatePolicy,
)
from model.status import Phase
from tests.support.agents import make_host
from tests.support.fleet import Fleet

SEEDS = int(os.environ.get("FLOTA_SIM_SEEDS", "1000" if os.environ.get("FLOTA_FULL") == "1" else "50"))
ONE = os.environ.get("FLOTA_SIM_SEED")
HOSTS, REPLICAS, STEPS = 3, 5, 40
CHECK = HealthCheck(probe=TcpProbe(port=80))
OPTIONS = Options(ping_every=3.0, liveness=Policy(unknown_after=7.0, lost_after=12.0))
"""Slower than in life, so that a simulated second costs less; nobody is lost here."""


class WatchedStore(MemoryStore):
    """`judge(before, after)` at each commit."""

    judge: Callable[[Cluster, Cluster], None] = staticmethod(lambda before, after: None)

    async def commit(self, txn: Txn) -> Revision | Conflict:
        before = self.snapshot()
        outcome = await super().commit(txn)
        if not isinstance(outcome, Conflict):
            self.judge(before, self.snapshot())
        return outcome


class Simulation:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.clock = VirtualClock()
        self.store = WatchedStore()
        self.store.judge = self.judge
        self.fleet = Fleet(self.store, self.clock, OPTIONS)
        self.policy = UpdatePolicy(
            parallelism=self.random.randrange(1, 4),
            order=self.random.choice(("stop-first", "start-first")),
            failure_action=self.random.choice(("pause", "continue", "rollback")),
            max_failure_ratio=self.random.choice((0.0, 0.5)),
        )
        self.given_up = 0

    def web(self, image: str) -> ServiceSpec:
        return ServiceSpec(
            name="web",
            container=ContainerSpec(image=image, health=CHECK, networks=(Attachment(network="blue"),)),
            mode=Replicated(replicas=REPLICAS),
            update=self.policy,
            rollback=UpdatePolicy(parallelism=self.policy.parallelism, order=self.policy.order),
        )

    async def run(self) -> None:
        f = self.fleet
        await f.start()
        hosts = [make_host(n + 1) for n in range(HOSTS)]
        await f.admit(*hosts)
        for host in hosts:
            await f.connect(host.id)
        await self.clock.advance(0.1)
        await f.controller.create_network(NetworkSpec(name="blue"))
        await f.controller.create_service(self.web("v0"))
        await self.clock.advance(1)
        for host in hosts:
            host.first_health = "starting"
        for _ in range(STEPS):
            await self.random.choice(
                (self.update, self.look, self.look, self.look, self.crash, self.restart, self.step_wall)
            )()
            await self.clock.advance(self.random.choice((0.0, 0.1, 1.0, 5.0)))
        await self.heal()
        await f.close()

    # -- what happens -----------------------------------------------------------------------------------
    async def update(self) -> None:
        spec = self.web(f"v{self.random.randrange(4)}")
        await self.fleet.controller.update_service("web", UpdateService(spec=spec))

    async def look(self) -> None:
        """Some health check ends."""
        running = [
            (agent, ident)
            for agent in self.fleet.agents.values()
            for ident, status in agent.host.statuses.items()
            if status.phase is Phase.RUNNING
        ]
        if running:
            agent, ident = self.random.choice(sorted(running, key=lambda pair: pair[1]))
            await agent.look(ident, self.random.choice(("healthy", "healthy", "healthy", "unhealthy")))

    async def crash(self) -> None:
        for agent in self.fleet.agents.values():
            for ident, status in list(agent.host.statuses.items()):
                if status.phase is Phase.RUNNING and self.random.random() < 0.05:
                    await agent.exit(ident, 1)

    async def step_wall(self) -> None:
        self.clock.step(self.random.choice((-7200.0, -40.0, 40.0, 7200.0)))

    async def restart(self) -> None:
        """The controller dies, and another takes its place."""
        await self.fleet.kill()
        await self.fleet.start()
        for host in sorted(self.fleet.hosts):
            await self.fleet.connect(host)

    async def heal(self) -> None:
        """From now on all are well; a paused update is asked to go on."""
        for _ in range(30):
            for agent in self.fleet.agents.values():
                agent.host.first_health = "healthy"
                for ident, status in list(agent.host.statuses.items()):
                    if status.phase is Phase.RUNNING and status.health != "healthy":
                        await agent.look(ident, "healthy")
            await self.clock.advance(6)
        service = self.fleet.controller.get_service("web").service
        if service.rollout is not None and service.rollout.state in ("paused", "rollback_paused"):
            assert any(c.type == "rollout" for c in service.conditions), "a pause says why"
            update = UpdateService(spec=service.spec)
            await self.fleet.controller.update_service("web", update)
            await self.clock.advance(180)
        self.check_converged()

    # -- invariants -------------------------------------------------------------------------------------
    def ready(self, cluster: Cluster) -> set[int]:
        statuses = self.fleet.controller.statuses.by_id if self.fleet.up else {}
        return {
            i.slot
            for i in cluster.instances.values()
            if i.desired is Desired.RUNNING
            and i.host is not None
            and status_of(i, cluster.hosts.get(i.host), statuses.get(i.id)).ready
        }

    def judge(self, before: Cluster, after: Cluster) -> None:
        was, now = self.ready(before), self.ready(after)
        lost = was - now
        if not lost:
            return
        self.given_up += 1
        assert self.policy.order == "stop-first", f"{lost} given up before their successors were ready"
        assert REPLICAS - len(now) <= max(self.policy.parallelism, REPLICAS - len(was)), (lost, now)

    def check_converged(self) -> None:
        info = self.fleet.controller.get_service("web")
        detail = [
            (i.instance.name, i.instance.desired, i.status.phase, i.status.health) for i in info.instances
        ]
        assert info.running == REPLICAS, (detail, info.service.rollout)
        active = [i.instance for i in info.instances if i.instance.desired is Desired.RUNNING]
        assert {i.spec.image for i in active} == {info.service.spec.container.image}, detail
        assert len(active) == REPLICAS, detail
        rollout = info.service.rollout
        assert rollout is None or rollout.state in ("completed", "rollback_completed"), rollout
        for agent in self.fleet.agents.values():
            assert agent.directory is not None
            members = [m for ms in agent.directory.networks.values() for m in ms.values() if m.ready]
            assert not members or len(members) == REPLICAS


@pytest.mark.parametrize("seed", [int(ONE)] if ONE else range(SEEDS))
async def test_updates_keep_what_is_ready_and_come_to_an_end(seed: int) -> None:
    simulation = Simulation(seed)
    try:
        async with asyncio.timeout(60):
            await simulation.run()
    except BaseException:
        print(f"\nreplay with FLOTA_SIM_SEED={seed}")
        raise
