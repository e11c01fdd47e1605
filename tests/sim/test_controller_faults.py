"""Seeded simulation: a real controller on virtual time, fake agents, and a nemesis that breaks things.

After each run of faults the nemesis stops and the fleet must converge: as many instances as wanted, on hosts
that live, none twice on a host, no block with two holders, reservations kept. FLOTA_SIM_SEEDS sets how many
seeds are tried (50, and 1000 with --full), FLOTA_SIM_SEED one of them alone; a failure prints its seed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import random
from itertools import pairwise

import pytest

from aio.clock import VirtualClock
from controller.liveness import Policy
from controller.options import Options
from controller.snapshot import Cluster
from controller.store.memory import MemoryStore
from model.api import CreateInstance, UpdateHost, UpdateService
from model.errors import FlotaError, InUse, NotFound
from model.records import Desired
from model.spec import (
    Attachment,
    Availability,
    ContainerSpec,
    NetworkSpec,
    Placement,
    Replicated,
    Reservations,
    ServiceSpec,
    UpdatePolicy,
)
from model.status import HostState, Phase
from tests.support.agents import FakeHost, make_host
from tests.support.fleet import Fleet

SEEDS = int(os.environ.get("FLOTA_SIM_SEEDS", "1000" if os.environ.get("FLOTA_FULL") == "1" else "50"))
ONE = os.environ.get("FLOTA_SIM_SEED")
HOSTS = 4
STEPS = 25
OPTIONS = Options(
    ping_every=3.0,
    liveness=Policy(
        unknown_after=7.0,
        lost_after=12.0,
        start_term=20.0,
        hold_for=20.0,
        settle_first=5.0,
        settle_limit=20.0,
    ),
)
"""Slower than in life, so that a simulated second costs less; only the ratios matter."""
PLACEMENT = Placement(reservations=Reservations(memory=1 << 30, nano_cpus=10**8))


NETWORKS = ("blue", "green")


def web(replicas: int, image: str, network: str = "blue") -> ServiceSpec:
    return ServiceSpec(
        name="web",
        container=ContainerSpec(image=image, networks=(Attachment(network=network),)),
        mode=Replicated(replicas=replicas),
        placement=PLACEMENT,
        update=UpdatePolicy(parallelism=2),
    )


class Simulation:
    """One seed: what was acknowledged is kept beside, to compare with."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.clock = VirtualClock()
        self.fleet = Fleet(MemoryStore(), self.clock, OPTIONS)
        self.cut: set[FakeHost] = set()
        self.replicas = 4
        self.plain: dict[str, bool] = {}
        self.revision = 0
        self.seen_generation = 0

    async def run(self) -> None:
        f = self.fleet
        await f.start()
        hosts = [make_host(n + 1, memory=2 << 30) for n in range(HOSTS)]
        await f.admit(*hosts)
        for host in hosts:
            await f.connect(host.id)
        await self.clock.advance(0.1)
        await f.controller.create_network(NetworkSpec(name="blue"))
        await f.controller.create_service(web(self.replicas, "v1"))
        for _ in range(STEPS):
            await self.step()
            await self.clock.advance(self.random.choice((0.0, 0.1, 4.0, 10.0, 20.0)))
            self.check_always()
        await self.heal()
        self.check_converged()
        await f.close()

    async def step(self) -> None:
        verbs = (
            self.kill_controller,
            self.sever,
            self.restore,
            self.restart_agent,
            self.scale,
            self.update,
            self.create,
            self.remove,
            self.crash,
            self.drain,
            self.remove_network,
            self.step_wall,
        )
        await self.random.choice(verbs)()

    # -- the nemesis ------------------------------------------------------------------------------------
    async def kill_controller(self) -> None:
        if self.fleet.up:
            await self.fleet.kill()
            self.cut.clear()
        else:
            await self.fleet.start()
            for host in self.fleet.hosts:
                await self.fleet.connect(host)

    async def sever(self) -> None:
        if self.fleet.agents:
            agent = self.random.choice(list(self.fleet.agents.values()))
            agent.channel.sever()

    async def restore(self) -> None:
        for agent in list(self.fleet.agents.values()):
            agent.channel.heal()
        await self.reconnect()

    async def restart_agent(self) -> None:
        if self.fleet.agents:
            host = self.random.choice(sorted(self.fleet.agents))
            self.fleet.disconnect(host)
            await self.clock.advance(self.random.choice((0.0, 4.0)))
            if self.fleet.up:
                await self.fleet.connect(host)

    async def step_wall(self) -> None:
        """The controller's wall clock is set, back or forth."""
        self.clock.step(self.random.choice((-7200.0, -40.0, -1.0, 40.0, 7200.0)))

    async def crash(self) -> None:
        """A container ends by itself."""
        agents = [a for a in self.fleet.agents.values() if not a.channel.cut and not a.channel.closed]
        running = [(a, i) for a in agents for i, s in a.host.statuses.items() if s.phase is Phase.RUNNING]
        if running:
            agent, ident = self.random.choice(sorted(running, key=lambda pair: pair[1]))
            try:
                await agent.exit(ident, 1)
            except ConnectionResetError:
                return

    # -- people -----------------------------------------------------------------------------------------
    async def scale(self) -> None:
        if self.fleet.up:
            self.replicas = self.random.randrange(0, 8)
            await self.fleet.controller.scale_service("web", self.replicas)

    async def update(self) -> None:
        if self.fleet.up:
            spec = web(self.replicas, f"v{self.random.randrange(3)}", self.random.choice((*NETWORKS, "blue")))
            try:
                await self.fleet.controller.update_service("web", UpdateService(spec=spec))
            except NotFound as refusal:
                assert "network" in refusal.message

    async def remove_network(self) -> None:
        """If nobody uses it; one that is not there is made."""
        if self.fleet.up:
            name = self.random.choice(NETWORKS)
            try:
                await self.fleet.controller.remove_network(name)
            except InUse:
                return
            except NotFound:
                await self.fleet.controller.create_network(NetworkSpec(name=name))

    async def drain(self) -> None:
        if self.fleet.up:
            host = f"host{self.random.randrange(HOSTS) + 1}"
            availability = self.random.choice((Availability.ACTIVE, Availability.DRAIN))
            await self.fleet.controller.update_host(host, UpdateHost(availability=availability))

    async def create(self) -> None:
        if self.fleet.up:
            spec = ContainerSpec(image="busybox", networks=(Attachment(network="blue"),))
            try:
                made = await self.fleet.controller.create_instance(CreateInstance(spec=spec, start=True))
            except FlotaError as refusal:
                assert refusal.code in ("exhausted", "not_found"), refusal
                return
            self.plain[made.instance.id] = True

    async def remove(self) -> None:
        alive = sorted(ident for ident, there in self.plain.items() if there)
        if self.fleet.up and alive:
            ident = self.random.choice(alive)
            await self.fleet.controller.remove_instance(ident, force=True, volumes=False)
            self.plain[ident] = False

    # -- after the faults -------------------------------------------------------------------------------
    async def reconnect(self) -> None:
        if not self.fleet.up:
            return
        for host in sorted(self.fleet.hosts):
            agent = self.fleet.agents.get(host)
            if agent is None or agent.channel.closed or agent.goodbye is not None:
                await self.fleet.connect(host)

    async def go_on(self) -> None:
        """A container that ended by itself may have paused an update: it is asked for again."""
        service = self.fleet.controller.get_service("web").service
        if service.rollout is not None and service.rollout.state == "paused":
            await self.fleet.controller.update_service("web", UpdateService(spec=service.spec))

    async def heal(self) -> None:
        if not self.fleet.up:
            await self.fleet.start()
        for number in range(HOSTS):
            update = UpdateHost(availability=Availability.ACTIVE)
            await self.fleet.controller.update_host(f"host{number + 1}", update)
        for _ in range(8):
            await self.restore()
            await self.go_on()
            await self.clock.advance(8)
        await self.clock.advance(90)
        await self.restore()
        await self.clock.advance(10)

    # -- invariants -------------------------------------------------------------------------------------
    def check_always(self) -> None:
        cluster = self.fleet.store.snapshot()
        assert cluster.revision >= self.revision, "I3: the store went back"
        self.revision = cluster.revision
        for ident, there in self.plain.items():
            if there:
                assert ident in cluster.instances, "I3: an acknowledged create is lost"
                assert cluster.instances[ident].desired is Desired.RUNNING
        for instance in cluster.instances.values():
            there = all(a.network in cluster.networks for a in instance.attachments)
            assert there or instance.desired is Desired.STOPPED, "a network was removed under a container"
        self.check_blocks(cluster)
        self.check_reservations(cluster)
        anew = Cluster().apply(tuple(cluster.records()), (), cluster.revision)[0]
        assert anew == cluster, "the indexes drifted"

    @staticmethod
    def check_blocks(cluster: Cluster) -> None:
        """I9: no address in two blocks of one network."""
        for network, blocks in cluster.blocks_by_network.items():
            ranges = sorted(ipaddress.IPv4Network(cidr) for cidr in blocks)
            for a, b in pairwise(ranges):
                assert not a.overlaps(b), f"I9: {a} and {b} overlap in {network}"

    @staticmethod
    def check_reservations(cluster: Cluster) -> None:
        for host, used in cluster.usage.items():
            facts = cluster.hosts[host].facts
            assert used.memory <= facts.memory and used.nano_cpus <= facts.nano_cpus, "over-committed"

    def check_directories(self, cluster: Cluster) -> None:
        """Each host in session knows who really runs on its networks, and nobody else."""
        truth: dict[str, dict[str, str]] = {}
        for host in self.fleet.hosts.values():
            for ident, status in host.statuses.items():
                if status.phase is not Phase.RUNNING or ident not in cluster.instances:
                    continue
                for endpoint in status.endpoints:
                    truth.setdefault(endpoint.network, {})[ident] = endpoint.ipv4
        for agent in self.fleet.agents.values():
            assert agent.directory is not None
            spread = {n for n in agent.view.networks if cluster.networks[n].spec.driver == "overlay"}
            told = {n: {i: m.ipv4 for i, m in ms.items()} for n, ms in agent.directory.networks.items()}
            assert {n: told.get(n, {}) for n in spread} == {n: truth.get(n, {}) for n in spread}

    def check_converged(self) -> None:
        f = self.fleet
        info = f.controller.get_service("web")
        detail = [(i.instance.name, i.instance.desired, i.status.phase, i.host_name) for i in info.instances]
        assert info.running == self.replicas == info.wanted, f"I5: {detail} {info.explanation}"
        cluster = f.controller.snapshot()
        states = {h.spec.name: h.state for h in cluster.hosts.values()}
        assert set(states.values()) == {HostState.READY}, states
        slots = [
            i.slot
            for i in cluster.instances.values()
            if i.service is not None and i.desired is Desired.RUNNING
        ]
        assert sorted(slots) == list(range(1, self.replicas + 1)), "one instance per slot"
        assert not [i for i in cluster.instances.values() if i.desired is Desired.REMOVED], (
            "I8: surplus stays"
        )
        for ident, there in self.plain.items():
            assert (ident in cluster.instances) == there
        for host in f.hosts.values():
            running = {i for i, s in host.statuses.items() if s.phase is Phase.RUNNING}
            wanted = {i.id for i in cluster.on_host(host.id).values() if i.desired is Desired.RUNNING}
            assert running <= wanted, "a host runs what it should not"
        places = [i for host in f.hosts.values() for i in host.statuses]
        assert len(places) == len(set(places)), "an instance is on two hosts"
        self.check_directories(cluster)
        images = {i.instance.spec.image for i in info.instances if i.instance.desired is Desired.RUNNING}
        assert images <= {info.service.spec.container.image}, "I21: an old generation still runs"


@pytest.mark.parametrize("seed", [int(ONE)] if ONE else range(SEEDS))
async def test_fleet_converges_after_faults(seed: int) -> None:
    simulation = Simulation(seed)
    try:
        async with asyncio.timeout(60):
            await simulation.run()
    except BaseException:
        print(f"\nreplay with FLOTA_SIM_SEED={seed}")
        raise
