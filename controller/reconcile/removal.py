"""When the record of an instance goes: once its host says that nothing of it is left. Pure.

Invariant: the record of an instance that may still exist on a host of the fleet is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from controller.plan import Item, Plan, delete, put
from controller.snapshot import Cluster
from model.events import Event, of_container
from model.ids import HostId, InstanceId
from model.records import Desired, Instance
from model.status import HostFacts, HostState, InstanceStatus, Phase
from model.wire import Hello


def plan_instance(cluster: Cluster, ident: InstanceId, status: InstanceStatus | None, now: float) -> Plan:
    """A plain instance: delete the record of one that is to go and has nowhere left to be."""
    instance = cluster.instances.get(ident)
    if instance is None:
        return Plan()
    if instance.host is None:
        return _destroy([instance], "it was never placed", now) if _goes(instance) else Plan()
    if instance.host not in cluster.hosts:
        return _destroy([instance], "its host was removed from the fleet", now)
    if status is not None and status.phase is Phase.REMOVED and _goes(instance):
        return _destroy([instance], "nothing of it is left on its host", now)
    if instance.service is not None and instance.desired is not Desired.REMOVED:
        orphan = replace(instance, desired=Desired.REMOVED, reason="its service was removed")
        return Plan(items=(put(orphan, orphan.reason),))
    return Plan()


def plan_forgotten(
    cluster: Cluster,
    host: HostId,
    forgotten: Iterable[InstanceId],
    statuses: Mapping[InstanceId, InstanceStatus],
    now: float,
) -> Plan:
    """What `host` says is gone, or reports as removed: delete the records that were to go."""
    gone = {*forgotten, *(i for i, s in statuses.items() if s.phase is Phase.REMOVED)}
    known = (cluster.instances.get(ident) for ident in sorted(gone))
    return _destroy(
        [i for i in known if i is not None and i.host == host and _goes(i)],
        "nothing of it is left on its host",
        now,
    )


def plan_hello(cluster: Cluster, host: HostId, hello: Hello, now: float) -> Plan:
    """A session begins: the host is ready, its facts are new, and instances that were to be removed and are
    not among what runs there are gone."""
    record = cluster.hosts.get(host)
    if record is None:
        return Plan()
    items: list[Item] = []
    events: tuple[Event, ...] = ()
    fresh = replace(record, facts=hello.facts, state=HostState.READY, state_reason="")
    if fresh != record:
        items.append(put(fresh, f"{record.spec.name} is in session"))
    if record.state is not HostState.READY:
        name = record.spec.name
        events = (Event(type="node", action="ready", id=host, name=name, host=name, at=now),)
    there = {s.instance for s in hello.statuses if s.phase is not Phase.REMOVED}
    gone = [
        i
        for _, i in sorted(cluster.on_host(host).items())
        if i.desired is Desired.REMOVED and i.id not in there
    ]
    destroyed = _destroy(gone, "its host does not have it any more", now)
    return Plan(items=(*items, *destroyed.items), events=(*events, *destroyed.events))


def plan_facts(cluster: Cluster, host: HostId, facts: HostFacts) -> Plan:
    """What a host is has changed while it is in session."""
    record = cluster.hosts.get(host)
    if record is None or record.facts == facts:
        return Plan()
    moved = f"{record.spec.name} is at {facts.address}, with packets of {facts.mtu} bytes at most"
    return Plan(items=(put(replace(record, facts=facts), moved),))


def _goes(instance: Instance) -> bool:
    return instance.desired is Desired.REMOVED or instance.spec.auto_remove


def _destroy(instances: Iterable[Instance], reason: str, now: float) -> Plan:
    every = tuple(instances)
    return Plan(
        items=tuple(delete(instance, reason) for instance in every),
        events=tuple(_destroyed(instance, now) for instance in every),
    )


def _destroyed(instance: Instance, now: float) -> Event:
    attributes = of_container(instance.spec.labels, instance.spec.image)
    return Event(
        type="container", action="destroy", id=instance.id, name=instance.name, at=now, attributes=attributes
    )
