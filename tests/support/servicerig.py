"""Services on a cluster in memory: plans are applied, hosts say and do what a test lets them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from typing import Any

import msgspec

from controller.commands.services import update
from controller.placing import World
from controller.plan import Plan
from controller.reconcile.prepull import Prepull
from controller.reconcile.service import plan_service
from controller.snapshot import Cluster
from model.api import UpdateService
from model.ids import HostId, InstanceId, NetworkId, ServiceId
from model.records import Desired, Host, Instance, Network, Service
from model.spec import (
    ContainerSpec,
    HostSpec,
    NetworkSpec,
    Replicated,
    RestartPolicy,
    ServiceSpec,
    Subnet,
    UpdatePolicy,
)
from model.status import Health, HostFacts, HostState, InstanceStatus, Phase

WEB = ServiceId("web")
ALWAYS = RestartPolicy(condition="always")
BRIDGE = Network(
    id=NetworkId("bridge"),
    spec=NetworkSpec(name="bridge", driver="bridge", subnets=(Subnet(cidr="172.29.0.0/16"),)),
)


def host(number: int, **fields: object) -> Host:
    facts = HostFacts(hostname=f"h{number}", address=f"192.0.2.{number}", nano_cpus=10**10, memory=1 << 34)
    base = Host(id=HostId(f"h{number}"), spec=HostSpec(name=f"h{number}"), facts=facts, state=HostState.READY)
    return msgspec.structs.replace(base, **fields)


def spec(image: str = "v1", replicas: int = 2, *, condition: str = "always", **update: object) -> ServiceSpec:
    policy = RestartPolicy(condition=condition)  # type: ignore[arg-type]
    return ServiceSpec(
        name="web",
        container=ContainerSpec(image=image, restart=policy),
        mode=Replicated(replicas=replicas),
        update=UpdatePolicy(**update),  # type: ignore[arg-type]
    )


class Rig:
    """Applies plans to a cluster; hosts do at once what they are told when `obey` is called."""

    def __init__(self, service: ServiceSpec, *hosts: Host) -> None:
        self.now = 1000.0
        self._ids = count(1)
        self.statuses: dict[InstanceId, InstanceStatus] = {}
        self.prepulls: dict[Prepull, str | None] = {}
        record = Service(id=WEB, spec=service)
        self.cluster = Cluster().apply((record, BRIDGE, *hosts), (), 1)[0]

    def put(self, *records: object) -> None:
        self.cluster = self.cluster.apply(records, (), self.cluster.revision + 1)[0]  # type: ignore[arg-type]

    @property
    def service(self) -> Service:
        return self.cluster.services[WEB]

    def change(self, new: ServiceSpec) -> None:
        """As a person's request does it."""
        self.put(
            *(item.record for item in update(self.cluster, WEB, UpdateService(spec=new), self.now).items)
        )

    def plan(self) -> Plan:
        world = World(statuses=self.statuses, prepulls=self.prepulls)
        return plan_service(self.cluster, WEB, world, self.now, lambda: f"{next(self._ids):064x}")

    def step(self) -> Plan:
        plan = self.plan()
        puts = [i.record for i in plan.items if not i.delete]
        deletes = [i.record for i in plan.items if i.delete]
        self.cluster = self.cluster.apply(puts, deletes, self.cluster.revision + 1)[0]
        return plan

    def obey(self, health: Health = "") -> None:
        for instance in list(self.cluster.instances.values()):
            if instance.host is None:
                continue
            if instance.desired is Desired.REMOVED:
                self.cluster = self.cluster.apply((), (instance,), self.cluster.revision + 1)[0]
                self.statuses.pop(instance.id, None)
            elif instance.desired is Desired.STOPPED and not self.statuses[instance.id].phase.ended:
                self.says(instance, Phase.EXITED, 143)
            elif instance.desired is Desired.RUNNING and instance.id not in self.statuses:
                self.says(instance, Phase.RUNNING, health=health)

    def says(
        self, instance: Instance, phase: Phase, code: int | None = None, health: Health = "", **more: Any
    ) -> None:
        status = InstanceStatus(
            instance=instance.id, attempt=instance.attempt, phase=phase, exit_code=code, health=health, **more
        )
        self.statuses[instance.id] = status

    def settle(self, rounds: int = 30) -> None:
        for _ in range(rounds):
            self.obey()
            if self.step().empty:
                return
        raise AssertionError("does not settle")

    def active(self) -> list[Instance]:
        found = [i for i in self.cluster.instances.values() if i.desired is Desired.RUNNING]
        return sorted(found, key=lambda i: (i.slot, i.id))

    def ready(self) -> list[Instance]:
        """Those that serve, as far as their hosts have told."""
        return [i for i in self.active() if i.id in self.statuses and self.statuses[i.id].ready]

    def images(self) -> list[str]:
        return [i.spec.image for i in self.active()]


def reasons(plan: Plan) -> Iterable[str]:
    return [item.reason for item in plan.items]
