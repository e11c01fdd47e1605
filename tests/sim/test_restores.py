"""Seeded simulation: a fleet's controller is lost, and restored from a backup that is older than its hosts.

Whatever people did between backup and loss: what ran on hosts runs on, on the addresses that it had, no two
hosts share one, and the fleet comes to rest as it should be. FLOTA_SIM_SEEDS and FLOTA_SIM_SEED as in
`test_controller_faults`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
from itertools import combinations

import pytest
from msgspec.structs import replace

from aio.clock import VirtualClock
from controller import recovery
from controller.snapshot import Cluster
from controller.store.memory import MemoryStore
from model.api import CreateInstance, StopRequest, UpdateService
from model.errors import NotFound, WrongState
from model.ids import HostId, InstanceId
from model.records import Desired
from model.spec import Attachment, ContainerSpec, NetworkSpec, Replicated, ServiceSpec
from model.status import HostState, Phase
from model.wire import PROTOCOL, WITH_RECALL
from tests.sim.test_controller_faults import ONE, OPTIONS, SEEDS
from tests.support.agents import make_host
from tests.support.fleet import Fleet

HOSTS = 3
NETWORK = NetworkSpec(name="n0")


class Restoring:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.clock = VirtualClock()
        self.fleet = Fleet(MemoryStore(), self.clock, OPTIONS)
        self.count = 0

    async def begin(self) -> None:
        await self.fleet.start()
        hosts = [make_host(number + 1) for number in range(HOSTS)]
        await self.fleet.admit(*hosts)
        for host in hosts:
            await self.fleet.connect(host.id)
        await self.clock.advance(1)
        await self.fleet.controller.create_network(NETWORK)
        await self.serve("web")

    async def serve(self, name: str, *, keep: bool = False) -> None:
        container = ContainerSpec(image="v0", networks=(Attachment(network="n0", keep_address=keep),))
        await self.fleet.controller.create_service(
            ServiceSpec(name=name, container=container, mode=Replicated(replicas=2))
        )

    # -- people -----------------------------------------------------------------------------------------
    async def work(self, steps: int) -> None:
        acts = (self.create, self.create, self.remove, self.stop, self.scale, self.update, self.network)
        for _ in range(steps):
            await self.random.choice((*acts, self.service, self.end_service, self.end_network))()
            await self.clock.advance(self.random.choice((0.0, 0.1, 3.0)))
        await self.clock.advance(30)

    async def create(self) -> None:
        names = [n.spec.name for n in self.cluster.networks.values() if not n.predefined]
        attachment = Attachment(network=self.random.choice(sorted(names)))
        spec = ContainerSpec(image="busybox", networks=(attachment,))
        self.count += 1
        request = CreateInstance(spec=spec, start=True, name=f"c{self.count}")
        await self.fleet.controller.create_instance(request)

    def plain(self) -> list[InstanceId]:
        return sorted(i.id for i in self.cluster.instances.values() if i.service is None)

    async def remove(self) -> None:
        if found := self.plain():
            await self.fleet.controller.remove_instance(self.random.choice(found), force=True, volumes=False)

    async def stop(self) -> None:
        for ident in self.plain()[:1]:
            if self.cluster.instances[ident].desired is Desired.RUNNING:
                await self.fleet.controller.stop_instance(ident, StopRequest())

    async def scale(self) -> None:
        await self.fleet.controller.scale_service("web", self.random.randrange(1, 5))

    async def update(self) -> None:
        spec = self.fleet.controller.get_service("web").service.spec
        changed = replace(spec.container, image=f"v{self.random.randrange(3)}")
        await self.fleet.controller.update_service(
            "web", UpdateService(spec=replace(spec, container=changed))
        )

    async def network(self) -> None:
        self.count += 1
        await self.fleet.controller.create_network(NetworkSpec(name=f"n{self.count}"))

    async def service(self) -> None:
        self.count += 1
        await self.serve(f"s{self.count}", keep=self.random.random() < 0.5)

    async def end_service(self) -> None:
        names = sorted(s.spec.name for s in self.cluster.services.values() if not s.removed)
        if len(names) > 1:
            await self.fleet.controller.remove_service(self.random.choice([n for n in names if n != "web"]))

    async def end_network(self) -> None:
        unused = [n for n in self.cluster.networks.values() if not self.cluster.on_network(n.id)]
        for network in [n for n in unused if not n.predefined and n.spec.name != "n0"][:1]:
            await self.fleet.controller.remove_network(network.id)

    # -- the loss ---------------------------------------------------------------------------------------
    @property
    def cluster(self) -> Cluster:
        return self.fleet.store.snapshot()

    async def restore(self, backup: Cluster, epoch: int) -> None:
        now = self.clock.now()
        begun = recovery.restored(backup, taken_at=now, now=now)
        self.fleet.store = MemoryStore(begun, recovery.epoch_of(epoch, now))
        await self.fleet.start()
        with pytest.raises(WrongState, match="host1, host2, host3 not heard yet"):
            await self.fleet.controller.scale_service("web", 1)
        hosts = sorted(self.fleet.hosts)
        self.random.shuffle(hosts)
        late = hosts.pop() if self.random.random() < 0.3 else None
        for host in hosts:
            self.check_untouched()
            await self.fleet.connect(host)
            await self.clock.advance(self.random.choice((0.0, 1.0, 40.0)))
        if late is not None:
            self.check_untouched()
            await self.fleet.controller.settle()
            await self.clock.advance(1)
            await self.fleet.connect(late)
        await self.clock.advance(200)
        await self.reconnect()
        await self.clock.advance(60)

    async def reconnect(self) -> None:
        for host in sorted(self.fleet.hosts):
            agent = self.fleet.agents.get(host)
            if agent is None or agent.channel.closed or agent.goodbye is not None:
                await self.fleet.connect(host)

    # -- what must hold -----------------------------------------------------------------------------------
    def running(self) -> dict[InstanceId, tuple[HostId, tuple[str, ...]]]:
        return {
            ident: (host.id, tuple(endpoint.ipv4 for endpoint in status.endpoints))
            for host in self.fleet.hosts.values()
            for ident, status in host.statuses.items()
            if status.phase is Phase.RUNNING
        }

    def check_untouched(self) -> None:
        """No host has been told anything yet."""
        assert self.running() == self.before

    def check(self, lost: Cluster) -> None:
        cluster, after = self.cluster, self.running()
        assert cluster.settings.recovery is None
        assert {h.state for h in cluster.hosts.values()} == {HostState.READY}
        for ident, place in self.before.items():
            record = lost.instances[ident]
            if record.service is None or record.service not in cluster.services:
                assert after.get(ident) == place, f"container {record.name} was touched"
                assert cluster.instances[ident].service is None
        for service in cluster.services.values():
            assert isinstance(service.spec.mode, Replicated)
            running = [i for i in cluster.of_service(service.id).values() if i.id in after]
            assert len(running) == service.spec.mode.replicas
            kept = [i for i in running if i.id in self.before]
            same = all(lost.instances[i.id].spec == service.spec.container for i in kept)
            assert same, "a replica of another spec stays"
        self.check_addresses(cluster)

    def check_addresses(self, cluster: Cluster) -> None:
        for network, blocks in cluster.blocks_by_network.items():
            ranges = [(ipaddress.ip_network(b.cidr), b.host) for b in blocks.values() if not b.holder]
            for (a, _), (b, _) in combinations(ranges, 2):
                assert not a.overlaps(b), f"{a} and {b} overlap in {network}"
        for host in self.fleet.hosts.values():
            for status in host.statuses.values():
                for endpoint in status.endpoints if status.phase is Phase.RUNNING else ():
                    held = cluster.blocks_of(endpoint.network).values()
                    mine = [ipaddress.ip_network(b.cidr) for b in held if b.host == host.id]
                    assert any(ipaddress.ip_address(endpoint.ipv4) in one for one in mine), endpoint

    async def run(self) -> None:
        await self.begin()
        await self.work(self.random.randrange(0, 12))
        backup, epoch = self.cluster, self.fleet.controller.committer.epoch
        await self.work(self.random.randrange(0, 25))
        lost, self.before = self.cluster, self.running()
        await self.fleet.kill()
        await self.restore(backup, epoch)
        self.check(lost)
        await self.fleet.close()


async def test_host_that_joined_after_the_backup_is_let_in_by_a_person_and_keeps_what_it_has() -> None:
    simulation = Restoring(1)
    await simulation.begin()
    fleet, clock = simulation.fleet, simulation.clock
    backup, epoch = simulation.cluster, fleet.controller.committer.epoch
    late = make_host(HOSTS + 1)
    await fleet.admit(late)
    await fleet.connect(late.id)
    await clock.advance(1)
    spec = ContainerSpec(image="busybox", networks=(Attachment(network="n0"),))
    made = await fleet.controller.create_instance(
        CreateInstance(spec=spec, start=True, name="there", host=late.facts.hostname)
    )
    await clock.advance(5)
    simulation.before = simulation.running()
    assert simulation.before[made.instance.id][0] == late.id
    await fleet.kill()
    now = clock.now()
    fleet.store = MemoryStore(recovery.restored(backup, taken_at=now, now=now), recovery.epoch_of(epoch, now))
    await fleet.start()
    for host in sorted(fleet.hosts):
        await fleet.connect(host)
        await clock.advance(1)
    goodbye = fleet.agents[late.id].goodbye
    assert goodbye is not None and goodbye.retry and "joined after the backup" in goodbye.reason
    (knock,) = fleet.controller.recovery().knocks
    assert (knock.id, knock.name) == (late.id, late.facts.hostname)
    with pytest.raises(NotFound, match="no such knocking host"):
        await fleet.controller.admit_host("nobody")
    await fleet.controller.admit_host(late.facts.hostname)
    assert fleet.controller.recovery().unheard == (late.facts.hostname,)
    await fleet.connect(late.id)
    await clock.advance(30)
    assert simulation.running() == simulation.before
    assert fleet.controller.get_instance("there").instance.host == late.id
    assert fleet.controller.recovery().knocks == fleet.controller.recovery().unheard == ()
    await fleet.close()


async def test_host_that_joined_again_after_the_backup_is_let_in_and_keeps_what_it_has() -> None:
    """The backup knows an older certificate of it."""
    simulation = Restoring(3)
    await simulation.begin()
    fleet, clock = simulation.fleet, simulation.clock
    again = sorted(fleet.hosts)[0]
    spec = ContainerSpec(image="busybox", networks=(Attachment(network="n0"),))
    name = fleet.hosts[again].facts.hostname
    await fleet.controller.create_instance(CreateInstance(spec=spec, start=True, name="there", host=name))
    await clock.advance(5)
    simulation.before = simulation.running()
    await fleet.kill()
    backup = simulation.cluster
    known = replace(backup.hosts[again], certificate="old")
    backup, now = backup.apply((known,), (), backup.revision)[0], clock.now()
    fleet.store = MemoryStore(recovery.restored(backup, taken_at=now, now=now), recovery.epoch_of(1, now))
    await fleet.start()
    for host in sorted(fleet.hosts):
        await fleet.connect(host, "new" if host == again else "")
        await clock.advance(1)
    goodbye = fleet.agents[again].goodbye
    assert goodbye is not None and goodbye.retry, "an agent that ends can't be asked any more"
    assert f"flota node rm --force {name}, then flota fleet admit" in goodbye.reason
    assert fleet.controller.recovery().awaited == (name,)
    await fleet.controller.remove_host(name, force=True)
    await fleet.connect(again, "new")
    await clock.advance(1)
    await fleet.controller.admit_host(name)
    await fleet.connect(again, "new")
    await clock.advance(30)
    assert fleet.controller.get_instance("there").instance.host == again
    running = simulation.running()
    plain = fleet.controller.get_instance("there").instance.id
    assert running[plain] == simulation.before[plain]
    await fleet.close()


async def test_host_that_renewed_its_certificate_after_the_backup_is_asked_like_the_others() -> None:
    simulation = Restoring(4)
    await simulation.begin()
    fleet, clock = simulation.fleet, simulation.clock
    await clock.advance(5)
    simulation.before = simulation.running()
    await fleet.kill()
    backup, now = simulation.cluster, clock.now()
    one, other = sorted(fleet.hosts)[:2]
    known = [replace(backup.hosts[host], certificate="old") for host in (one, other)]
    backup = backup.apply(known, (), backup.revision)[0]
    fleet.store = MemoryStore(recovery.restored(backup, taken_at=now, now=now), recovery.epoch_of(1, now))
    await fleet.start()
    for host in sorted(fleet.hosts):
        await fleet.connect(
            host, "new" if host in (one, other) else "", made=now + (5 if host == one else -5)
        )
        await clock.advance(1)
    goodbye = fleet.agents[one].goodbye
    assert goodbye is not None and goodbye.retry, "by its new certificate it begins anew"
    await fleet.connect(one, "new")
    await clock.advance(1)
    assert fleet.controller.recovery().awaited == (fleet.hosts[other].facts.hostname,), "it had an older one"
    assert fleet.controller.snapshot().hosts[one].certificate == "new"
    await fleet.connect(one, "newer", made=now + 9)
    await clock.advance(1)
    goodbye = fleet.agents[one].goodbye
    assert goodbye is not None and "the newest is good" in goodbye.reason, "it has been heard by another"
    await fleet.connect(one, "new")
    await fleet.connect(other, "old")
    await clock.advance(30)
    assert fleet.controller.recovery().awaited == () and simulation.running() == simulation.before
    await fleet.close()


async def test_agent_that_cannot_be_asked_is_kept_waiting_while_the_fleet_waits() -> None:
    simulation = Restoring(2)
    await simulation.begin()
    fleet, clock = simulation.fleet, simulation.clock
    await clock.advance(5)
    simulation.before = simulation.running()
    await fleet.kill()
    old = sorted(fleet.hosts)[0]
    fleet.hosts[old].protocol = WITH_RECALL - 1
    now = clock.now()
    begun = recovery.restored(simulation.cluster, taken_at=now, now=now)
    fleet.store = MemoryStore(begun, recovery.epoch_of(1, now))
    await fleet.start()
    for host in sorted(fleet.hosts):
        await fleet.connect(host)
    await clock.advance(20)
    goodbye = fleet.agents[old].goodbye
    assert goodbye is not None and goodbye.retry and "can't be asked" in goodbye.reason
    assert fleet.controller.recovery().awaited == (fleet.hosts[old].facts.hostname,)
    simulation.check_untouched()
    fleet.hosts[old].protocol = PROTOCOL
    await fleet.connect(old)
    await clock.advance(20)
    assert fleet.controller.recovery().awaited == ()
    simulation.check_untouched()
    await fleet.close()


@pytest.mark.parametrize("seed", [int(ONE)] if ONE else range(SEEDS))
async def test_restored_fleet_keeps_what_its_hosts_have(seed: int) -> None:
    simulation = Restoring(seed)
    try:
        async with asyncio.timeout(60):
            await simulation.run()
    except BaseException:
        print(f"\nreplay with FLOTA_SIM_SEED={seed}")
        raise
