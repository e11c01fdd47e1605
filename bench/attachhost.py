"""A host's agent as far as networks go, in the namespace that this program is in; told line by line, it
prints seconds.

`attach` is what the agent does between "this container is to have its endpoint" and "its process may be
let go": namespace, endpoint, resolver, by the agent's own functions over the real kernel. `fill COUNT` has so
many stand already, `members COUNT` so many on other hosts. `change` has one of those become ready or not:
until the resolver serves it, and the processor time of it here.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import sys
import time
from itertools import count
from pathlib import Path

from msgspec.structs import replace

from agent import endpoints, plans
from agent.context import Context
from agent.hostprocesses import SupervisedProcesses, stop
from agent.journal import Journal
from agent.membership import Membership
from agent.namekeeper import NameKeeper
from agent.nameplan import NamePlan
from agent.naming import NameService
from agent.oci.facts import HostLimits
from agent.record import Local
from agent.runtime.base import Created
from agent.runtime.fake import FakeRuntime
from agent.volumes import Volumes
from aio.clock import SystemClock
from aio.supervisor import Supervisor
from image.fake import FakeImages
from model.directory import DirectoryDelta, Member
from model.ids import HostId, InstanceId, NetworkId
from model.image import ImageConfig
from model.records import Instance, ResolvedAttachment
from model.spec import ContainerSpec, NetworkSpec, Subnet
from model.status import HostFacts, Phase
from model.view import NetworkPeer, NetworkView, Peer, View
from net.reconciler import NetReconciler

HERE, THERE, NETWORK = HostId("a" * 64), HostId("b" * 64), NetworkId("c" * 64)
SPEC = NetworkSpec(name="app", driver="overlay", subnets=(Subnet(cidr="10.64.0.0/16"),))
OTHERS = 1 << 20
"""Where the numbers of the other host's containers begin."""
VIEW = View(
    revision=1,
    networks={
        NETWORK: NetworkView(
            id=NETWORK,
            spec=SPEC,
            vni=4242,
            blocks=("10.64.0.0/20",),
            peers=(NetworkPeer(host=THERE, blocks=("10.64.128.0/17",)),),
        )
    },
    peers={THERE: Peer(host=THERE, name="there", address="192.0.2.2")},
)


class AttachHost:
    def __init__(self, context: Context, network: NetReconciler, names: NameKeeper, told: Membership) -> None:
        self._context, self._network, self._keeper, self._membership = context, network, names, told
        self._numbers, self._steps = count(1), count(1)

    async def attach(self) -> float:
        """A container's network from nothing; seconds."""
        context, number = self._context, next(self._numbers)
        want = Instance(
            id=_ident(number),
            name=f"box{number}",
            spec=ContainerSpec(image="none"),
            attachments=(ResolvedAttachment(network=NETWORK),),
        )
        context.view = replace(context.view, instances={**context.view.instances, want.id: want})
        record = Local(instance=want.id)
        context.records[want.id] = record
        began = time.perf_counter()
        await endpoints.namespace(context, want)
        wired = await endpoints.wire(context, want, ImageConfig(), record)
        held = Created(pid=1, conmon_pid=1, conmon_started=1)
        record = replace(record, endpoints=wired.endpoints, created=held, prepared=True)
        context.records[want.id] = record
        self._keeper.ring()
        await self._keeper.known(record)
        took = time.perf_counter() - began
        context.records[want.id] = replace(record, phase=Phase.RUNNING, started=True)
        self._keeper.ring()
        return took

    async def close(self) -> None:
        await self._network.remove_all()
        await self._network.close()

    async def members(self, number: int) -> None:
        """So many on the other host, each ten of them a service."""
        told = {_ident(i): _member(i) for i in range(OTHERS, OTHERS + number)}
        self._membership.take(DirectoryDelta(put={NETWORK: told}), whole=True)
        await self.served()

    async def served(self) -> None:
        """Until all that is known now can be asked for."""
        names, told = self._context.names, self._membership.directory
        names.update(NamePlan().state(self._context.view, told, HERE, self._context.records))
        if not await names.served(30.0):
            raise RuntimeError(f"the resolver does not serve: {names.troubles}")

    async def change(self) -> tuple[float, float]:
        """One of them is ready no more, or again: seconds until that is served, and this process's own."""
        step = next(self._steps)
        ident, member = _ident(OTHERS + step // 2), replace(_member(OTHERS + step // 2), ready=bool(step % 2))
        worked, began = time.process_time(), time.perf_counter()
        self._membership.take(DirectoryDelta(put={NETWORK: {ident: member}}), whole=False)
        await self._keeper.known(next(iter(self._context.records.values())))
        return time.perf_counter() - began, time.process_time() - worked


def _ident(number: int) -> InstanceId:
    return InstanceId(hashlib.sha256(str(number).encode()).hexdigest())


def _member(number: int) -> Member:
    group = number // 10
    return Member(
        name=f"web{group}.{number % 10}.x",
        host=THERE,
        service_name=f"web{group}",
        slot=number % 10 + 1,
        aliases=(f"alias{number}",),
        ipv4=f"10.64.{128 + (number >> 8) % 128}.{number % 256}",
    )


async def _host(folder: Path, supervisor: Supervisor, journal: Journal) -> AttachHost:
    network = NetReconciler(folder / "run")
    volumes = Volumes(folder / "volumes", journal, dict)
    context = Context(
        host=HERE,
        facts=HostFacts(hostname="here", address="192.0.2.1", mtu=1500),
        images=FakeImages(folder / "roots", []),
        runtime=FakeRuntime(),
        network=network,
        volumes=volumes,
        names=NameService(folder / "run"),
        processes=SupervisedProcesses(folder / "run", folder),
        clock=SystemClock(),
        state=folder,
        run=folder / "run",
        limits=HostLimits(),
        seccomp=None,
        cgroup_parent="",
        boot_id="",
        view=VIEW,
    )
    context.addresses.changed = lambda net, leases: journal.put("leases", net, leases)
    membership = Membership(journal)
    keeper = NameKeeper(context, membership)
    membership.changed = lambda _: keeper.ring()
    await network.start()
    await network.apply(plans.network_plan(VIEW, HERE, context.facts))
    supervisor.start("verdicts", context.names.run)
    supervisor.start("processes", context.processes.run)
    supervisor.start("names", keeper.run)
    host = AttachHost(context, network, keeper, membership)
    await host.served()
    return host


async def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    folder = Path(sys.argv[1])
    (folder / "run").mkdir(parents=True)
    journal = await Journal.open(folder)
    loop = asyncio.get_running_loop()
    async with Supervisor("bench") as supervisor:
        host = await _host(folder, supervisor, journal)
        print("ready", flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            verb, *number = line.split()
            took: tuple[float, ...] = ()
            if verb == "attach":
                took = (await host.attach(),)
            elif verb == "fill":
                for _ in range(int(number[0])):
                    await host.attach()
            elif verb == "members":
                await host.members(int(number[0]))
            elif verb == "change":
                took = await host.change()
            print(*took, flush=True)
        await host.close()
    await stop(folder / "run")
    await journal.close()


if __name__ == "__main__":
    asyncio.set_child_watcher(asyncio.PidfdChildWatcher())
    asyncio.run(main())
