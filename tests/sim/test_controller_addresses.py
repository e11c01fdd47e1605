"""Seeded simulation of fixed addresses: a real controller, fake agents with the agent's real book of leases,
and a nemesis that cuts, kills, drains and changes its mind.

Never may two hosts that count hold one address, whatever happens; in the end every replica has the address
that is its own, and every host leads it to where it is. FLOTA_SIM_SEEDS and FLOTA_SIM_SEED as in the other
simulation.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import random
from collections import defaultdict

import pytest
from msgspec.structs import replace

from aio.clock import VirtualClock
from controller.snapshot import Cluster
from controller.store.memory import MemoryStore
from model.api import CreateInstance, UpdateHost, UpdateService
from model.errors import FlotaError
from model.ids import HostId
from model.spec import Attachment, Availability, ContainerSpec, NetworkSpec, Replicated, ServiceSpec, Subnet
from model.status import HostReport, HostState
from tests.sim.test_controller_faults import OPTIONS
from tests.support.addressing import AddressingAgent
from tests.support.agents import make_host
from tests.support.fleet import Fleet

SEEDS = int(os.environ.get("FLOTA_SIM_SEEDS", "500" if os.environ.get("FLOTA_FULL") == "1" else "30"))
ONE = os.environ.get("FLOTA_SIM_SEED")
HOSTS = 4
STEPS = 30
LISTED = tuple(f"10.9.0.{n}" for n in (5, 40, 41, 42, 100))
"""Some of them lie where hosts' shares will be."""


def service(name: str, wish: Attachment, replicas: int, image: str) -> ServiceSpec:
    container = ContainerSpec(image=image, networks=(wish,))
    return ServiceSpec(name=name, container=container, mode=Replicated(replicas=replicas))


class Simulation:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.clock = VirtualClock()
        self.fleet = Fleet(MemoryStore(), self.clock, OPTIONS)
        self.agent = type("Agent", (AddressingAgent,), {"books": {}})
        self.fleet.agent = self.agent
        self.replicas = {"listed": 4, "keeping": 3, "loose": 4}
        self.wishes = {
            "listed": Attachment(network="blue", ipv4=",".join(LISTED)),
            "keeping": Attachment(network="blue", keep_address=True),
            "loose": Attachment(network="blue"),
        }
        self.images = dict.fromkeys(self.replicas, "v0")
        self.kept: dict[int, str] = {}
        self.lost: dict[HostId, int] = {}
        self.plain: list[str] = []

    async def run(self) -> None:
        f = self.fleet
        await f.start()
        hosts = [make_host(n + 1) for n in range(HOSTS)]
        await f.admit(*hosts)
        for host in hosts:
            await f.connect(host.id)
        await self.clock.advance(0.1)
        await f.controller.create_network(NetworkSpec(name="blue", subnets=(Subnet(cidr="10.9.0.0/24"),)))
        for name in self.replicas:
            await f.controller.create_service(self.spec(name))
            await self.clock.advance(self.random.choice((0.0, 0.1)))
        for _ in range(STEPS):
            await self.step()
            for _ in range(2):
                await self.clock.advance(self.random.choice((0.0, 0.1, 2.0, 8.0, 20.0)))
                self.check_always()
        await self.heal()
        self.check_converged()
        await f.close()

    def spec(self, name: str) -> ServiceSpec:
        return service(name, self.wishes[name], self.replicas[name], self.images[name])

    async def step(self) -> None:
        acts = (self.kill_controller, self.sever, self.restore, self.restart_agent, self.scale, self.update)
        acts = (*acts, self.step_wall)
        people = (self.drain, self.create, self.create, self.remove)
        await self.random.choice((*acts, *people))()

    # -- the nemesis ------------------------------------------------------------------------------------
    async def kill_controller(self) -> None:
        if self.fleet.up:
            await self.fleet.kill()
        else:
            await self.fleet.start()
            await self.restore()

    async def sever(self) -> None:
        if self.fleet.agents:
            self.random.choice(list(self.fleet.agents.values())).channel.sever()

    async def restore(self) -> None:
        for agent in list(self.fleet.agents.values()):
            agent.channel.heal()
        if not self.fleet.up:
            return
        for host in sorted(self.fleet.hosts):
            agent = self.fleet.agents.get(host)
            if agent is None or agent.channel.closed or agent.goodbye is not None:
                await self.fleet.connect(host)

    async def step_wall(self) -> None:
        self.clock.step(self.random.choice((-7200.0, -20.0, 20.0, 7200.0)))

    async def restart_agent(self) -> None:
        if self.fleet.agents:
            host = self.random.choice(sorted(self.fleet.agents))
            self.fleet.disconnect(host)
            await self.clock.advance(self.random.choice((0.0, 4.0)))
            self.check_always()
            if self.fleet.up:
                await self.fleet.connect(host)

    # -- people -----------------------------------------------------------------------------------------
    async def change(self, name: str) -> None:
        if self.fleet.up:
            await self.fleet.controller.update_service(name, UpdateService(spec=self.spec(name)))

    async def scale(self) -> None:
        if self.fleet.up:
            name = self.random.choice(list(self.replicas))
            self.replicas[name] = self.random.randrange(0, 6)
            await self.change(name)

    async def update(self) -> None:
        if self.fleet.up:
            name = self.random.choice(list(self.replicas))
            self.images[name] = f"v{self.random.randrange(3)}"
            await self.change(name)

    async def drain(self) -> None:
        if self.fleet.up:
            host = f"host{self.random.randrange(HOSTS) + 1}"
            availability = self.random.choice((Availability.ACTIVE, Availability.DRAIN))
            await self.fleet.controller.update_host(host, UpdateHost(availability=availability))

    async def create(self) -> None:
        """A plain container that names an address, often one in somebody's share."""
        if self.fleet.up:
            wish = Attachment(network="blue", ipv4=f"10.9.0.{self.random.randrange(2, 80)}")
            spec = ContainerSpec(image="x", networks=(wish,))
            try:
                made = await self.fleet.controller.create_instance(CreateInstance(spec=spec, start=True))
            except FlotaError as refusal:
                assert refusal.code in ("exhausted", "in_use"), refusal
                return
            self.plain.append(made.instance.id)

    async def remove(self) -> None:
        if self.fleet.up and self.plain:
            ident = self.plain.pop(self.random.randrange(len(self.plain)))
            await self.fleet.controller.remove_instance(ident, force=True, volumes=False)

    async def heal(self) -> None:
        if not self.fleet.up:
            await self.fleet.start()
        for number in range(HOSTS):
            update = UpdateHost(availability=Availability.ACTIVE)
            await self.fleet.controller.update_host(f"host{number + 1}", update)
        for ident in self.plain:
            await self.fleet.controller.remove_instance(ident, force=True, volumes=False)
        for _ in range(8):
            await self.restore()
            await self.clock.advance(8)
            self.check_always()
        await self.clock.advance(120)
        await self.restore()
        await self.clock.advance(10)

    # -- invariants -------------------------------------------------------------------------------------
    def counts(self, cluster: Cluster, host: HostId) -> bool:
        """Whether what a host holds counts: not while it is lost, nor until it has heard of it."""
        record, agent = cluster.hosts[host], self.fleet.agents.get(host)
        if record.state is HostState.LOST:
            self.lost[host] = cluster.revision
        elif host in self.lost and agent is not None and agent.view.revision > self.lost[host]:
            del self.lost[host]
        return host not in self.lost

    def check_always(self) -> None:
        cluster = self.fleet.store.snapshot()
        holders: dict[str, list[str]] = defaultdict(list)
        for host, book in self.agent.books.items():
            if self.counts(cluster, host):
                for _, address in book.held():
                    holders[address].append(cluster.host_name(host))
        twice = {address: names for address, names in holders.items() if len(names) > 1}
        assert not twice, f"held twice: {twice}"
        for instance in cluster.instances.values():
            if instance.service_name == "keeping" and instance.host is not None:
                address = instance.attachments[0].ipv4
                if self.replicas["keeping"] >= instance.slot:
                    self.kept.setdefault(instance.slot, address)
        for slot in [slot for slot in self.kept if slot > self.replicas["keeping"]]:
            del self.kept[slot]

    def check_converged(self) -> None:
        f = self.fleet
        cluster = f.controller.snapshot()
        for name, wanted in self.replicas.items():
            info = f.controller.get_service(name)
            detail = [
                (i.instance.name, i.instance.desired, i.status.phase, i.host_name) for i in info.instances
            ]
            assert info.running == wanted, f"{name}: {detail} {info.explanation}"
            for one in info.instances:
                address, slot = one.instance.attachments[0].ipv4, one.instance.slot
                if one.status.phase.live:
                    assert one.status.endpoints[0].ipv4 == address or name == "loose"
                    assert address == {"listed": LISTED[slot - 1], "keeping": address, "loose": ""}[name]
                    if name == "keeping":
                        assert address == self.kept.get(slot, address), "it keeps its address"
        self.check_ways(cluster)
        leases = [b for b in cluster.blocks.values() if b.holder and not b.quarantined_until]
        assert len(leases) == self.replicas["listed"] + self.replicas["keeping"], "none is left over"

    def check_ways(self, cluster: Cluster) -> None:
        """Each host that carries the network leads each address to where it is."""
        for agent in self.fleet.agents.values():
            for view in agent.view.networks.values():
                for host in self.fleet.hosts.values():
                    for status in host.statuses.values():
                        for foot in status.endpoints:
                            if foot.network == view.id and status.phase.live:
                                ranges = [(c, agent.host.id) for c in view.held]
                                ranges += [(c, p.host) for p in view.peers for c in p.blocks]
                                assert way(foot.ipv4, ranges) == host.id, foot


def way(address: str, ranges: list[tuple[str, HostId]]) -> HostId | None:
    """Where the longest prefix leads."""
    single = ipaddress.ip_address(address)
    wholes = [(ipaddress.ip_network(cidr), host) for cidr, host in ranges]
    inside = [(whole.prefixlen, host) for whole, host in wholes if single in whole]
    return max(inside, default=(0, None))[1]


async def test_a_slash_24_serves_a_hundred_hosts_to_its_last_address() -> None:
    """Shares first, then single addresses; what hosts hold without using it comes back. Full is a condition
    that goes by itself."""
    clock = VirtualClock()
    patient = replace(OPTIONS.liveness, unknown_after=200.0, lost_after=250.0)
    seldom = replace(OPTIONS, ping_every=60.0, liveness=patient)
    fleet = Fleet(MemoryStore(), clock, seldom)
    fleet.agent = type("Agent", (AddressingAgent,), {"books": {}})
    await fleet.start()
    hosts = [make_host(n + 1) for n in range(100)]
    await fleet.admit(*hosts)
    for host in hosts:
        await fleet.connect(host.id)
    await clock.advance(0.1)
    await fleet.controller.create_network(NetworkSpec(name="blue", subnets=(Subnet(cidr="10.9.0.0/24"),)))
    await fleet.controller.create_service(service("web", Attachment(network="blue"), 100, "x"))
    await clock.advance(1)
    assert fleet.controller.get_service("web").running == 100
    assert len({b.host for b in fleet.store.snapshot().blocks.values()}) == 100
    usable = 253
    for replicas in (200, usable + 3, usable - 2):
        await fleet.controller.scale_service("web", replicas)
        await clock.advance(70)
        info = fleet.controller.get_service("web")
        assert info.running == min(replicas, usable), info.explanation
        if info.running < replicas:
            assert f"blue (10.9.0.0/24: {info.running} of 253 used" in info.explanation[0]
        else:
            assert info.explanation == ()
        addresses = [a for book in fleet.agent.books.values() for _, a in book.held()]
        assert len(addresses) == len(set(addresses)) == info.running
    blocks = fleet.store.snapshot().blocks.values()
    assert any(block.cidr.endswith("/32") for block in blocks), "single addresses are lent"
    await fleet.close()


async def test_host_that_falls_silent_while_it_is_short_takes_nothing_from_others() -> None:
    clock = VirtualClock()
    fleet = Fleet(MemoryStore(), clock, OPTIONS)
    await fleet.start()
    hosts = [make_host(n + 1) for n in range(3)]
    await fleet.admit(*hosts)
    for host in hosts:
        await fleet.connect(host.id)
    await clock.advance(0.1)
    blue = NetworkSpec(name="blue", subnets=(Subnet(cidr="10.9.0.0/24"),))
    ident = (await fleet.controller.create_network(blue)).network.id
    await fleet.controller.create_service(service("web", Attachment(network="blue"), 3, "x"))
    await clock.advance(1)
    agent = fleet.agents[hosts[0].id]
    agent.host.report = HostReport(host=agent.host.id, short=(ident,))
    await agent.tell_host()
    await clock.advance(0.1)
    agent.channel.sever()
    await clock.advance(120)
    cluster = fleet.store.snapshot()
    assert cluster.hosts[agent.host.id].state is HostState.LOST
    assert len([b for b in cluster.blocks.values() if b.host == agent.host.id]) <= 3
    await fleet.close()


@pytest.mark.parametrize("seed", [int(ONE)] if ONE else range(SEEDS))
async def test_no_address_is_held_twice_and_each_replica_has_its_own(seed: int) -> None:
    simulation = Simulation(seed)
    try:
        async with asyncio.timeout(60):
            await simulation.run()
    except BaseException:
        print(f"\nreplay with FLOTA_SIM_SEED={seed}")
        raise
