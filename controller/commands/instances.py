"""Commands on plain containers. Pure: each gives a Plan, or raises and changes nothing."""

from __future__ import annotations

from controller.addressing import Leases
from controller.attachments import check_published, resolve_attachments, shared_with, sharing
from controller.commands.find import find_host, find_instance
from controller.placing import World, assign
from controller.plan import Plan, put
from controller.schedule.filters import CHANGING, refused
from controller.schedule.fleet import demand_of, fleet_of
from controller.snapshot import Cluster
from model import lives
from model.api import CreateInstance, StopRequest
from model.errors import AlreadyExists, Exhausted, InvalidInput, WrongState
from model.events import Event, of_container
from model.ids import HostId, InstanceId, short
from model.inventednames import invent
from model.limits import UpdateLimits
from model.records import Desired, Instance
from model.status import InstanceStatus
from model.validate import validate_container, validate_name, validate_placement


def create(cluster: Cluster, request: CreateInstance, world: World, *, now: float, ident: InstanceId) -> Plan:
    """Place a new container and record it. Raises Exhausted when no host can take it."""
    problems = [
        *validate_container(request.spec, "spec"),
        *validate_placement(request.placement, request.spec, "placement"),
        *(validate_name("container", request.name, "name") if request.name else ()),
    ]
    if problems:
        raise InvalidInput.of("invalid container", tuple(problems))
    name = request.name or invent(ident, cluster.names)
    check_name_free(cluster, name)
    host = find_host(cluster, request.host).id if request.host else None
    spec = request.spec
    if ref := shared_with(spec):
        other = _beside(cluster, ref, host)
        host, spec = other.host, sharing(spec, other.id)
    attachments = resolve_attachments(cluster, spec)
    check_published(cluster, attachments, spec.ports)
    instance = Instance(
        id=ident,
        name=name,
        spec=spec,
        placement=request.placement,
        host=host,
        pinned=host is not None,
        desired=Desired.RUNNING if request.start else Desired.CREATED,
        attachments=attachments,
        created_at=now,
        reason="asked for on this host" if request.host else "the least loaded host that fits",
    )
    leases = Leases(cluster, now, world.statuses)
    assigned = assign(
        cluster, [instance], fleet_of(cluster, world.reports, world.settling, world.own), leases
    )
    placed = assigned.instances[0]
    if placed.host is None:
        raise Exhausted(f"container {name} fits nowhere: {placed.reason}", hint="See `flota node ls`")
    items = (put(placed, placed.reason), *leases.items())
    return Plan(items=items, events=(event("create", placed, cluster, now),), subject=ident)


def start(
    cluster: Cluster,
    ref: str,
    status: InstanceStatus | None,
    world: World,
    now: float,
    *,
    hold: bool = False,
) -> Plan:
    """As `lives.started`. Raises Exhausted when its host has meanwhile given away what it needs."""
    instance = _plain(cluster, ref, "start")
    changed = lives.started(instance, status, hold=hold)
    if changed != instance:
        _check_room(cluster, instance, world)
    return _plan(cluster, instance, changed, "start", now)


def stop(cluster: Cluster, ref: str, request: StopRequest, now: float) -> Plan:
    instance = _plain(cluster, ref, "stop")
    return _plan(cluster, instance, lives.stopped(instance, request), "stop", now)


def restart(cluster: Cluster, ref: str, request: StopRequest, world: World, now: float) -> Plan:
    """As `lives.restarted`. Raises Exhausted as `start`."""
    instance = _plain(cluster, ref, "restart")
    changed = lives.restarted(instance, request)
    _check_room(cluster, instance, world)
    return _plan(cluster, instance, changed, "restart", now)


def pause(cluster: Cluster, ref: str, status: InstanceStatus | None, *, paused: bool, now: float) -> Plan:
    """Freeze or thaw a running container."""
    instance = _plain(cluster, ref, "pause")
    changed = lives.paused(instance, status, to=paused)
    return _plan(cluster, instance, changed, "pause" if paused else "unpause", now)


def remove(
    cluster: Cluster, ref: str, status: InstanceStatus | None, *, force: bool, volumes: bool, now: float
) -> Plan:
    """As `lives.removed`. A service's instance is replaced."""
    instance = find_instance(cluster, ref)
    changed = lives.removed(instance, status, force=force, volumes=volumes)
    return _plan(cluster, instance, changed, "remove", now)


def rename(cluster: Cluster, ref: str, name: str, now: float) -> Plan:
    instance = _plain(cluster, ref, "rename")
    changed = lives.renamed(instance, name)
    check_name_free(cluster, name)
    return _plan(cluster, instance, changed, "rename", now)


def update_limits(cluster: Cluster, ref: str, request: UpdateLimits, now: float) -> Plan:
    """Raises WrongState for a service's, InvalidInput."""
    instance = _plain(cluster, ref, "change the limits of")
    return _plan(cluster, instance, lives.limited(instance, request), "update", now)


def check_name_free(cluster: Cluster, name: str) -> None:
    """Raises AlreadyExists."""
    holder = cluster.names.get(name)
    if holder is not None:
        raise AlreadyExists(
            f"the name {name} is in use by container {short(holder)}",
            hint=f"Remove or rename that one: flota rm {name}",
        )


def event(action: str, instance: Instance, cluster: Cluster, now: float) -> Event:
    host = cluster.host_name(instance.host)
    attributes = of_container(instance.spec.labels, instance.spec.image)
    return Event(
        type="container",
        action=action,
        id=instance.id,
        name=instance.name,
        host=host,
        at=now,
        attributes=attributes,
    )


OURS = frozenset({"rename", "restart", "update"})
"""Acts that are told here; a start, stop, pause or end is told by the host, when it has come about."""


def _plan(cluster: Cluster, before: Instance, changed: Instance, action: str, now: float) -> Plan:
    if changed == before:
        return Plan(subject=before.id)
    told = (event(action, changed, cluster, now),) if action in OURS else ()
    return Plan(items=(put(changed, changed.reason),), events=told, subject=changed.id)


def _plain(cluster: Cluster, ref: str, verb: str) -> Instance:
    instance = find_instance(cluster, ref)
    if instance.service is not None:
        raise WrongState(
            f"can't {verb} {instance.name}: it belongs to service {instance.service_name}",
            hint=f"Change the service: flota service update {instance.service_name}",
        )
    return instance


def _check_room(cluster: Cluster, instance: Instance, world: World) -> None:
    """A stopped container has given its reservations and ports back."""
    host = instance.host
    if instance.desired is not Desired.STOPPED or host is None or host not in cluster.hosts:
        return
    candidate = fleet_of(cluster, world.reports, own=world.own)[host]
    demand = demand_of(instance.spec, instance.placement, pinned=host)
    refusal = refused(CHANGING, demand, candidate)
    if refusal is not None:
        name = candidate.host.spec.name
        raise Exhausted(f"container {instance.name} does not fit on {name} any more: {refusal}")


def _beside(cluster: Cluster, ref: str, host: HostId | None) -> Instance:
    """The container whose network is shared; it has a host, and the host asked for must be the same."""
    other = find_instance(cluster, ref)
    if other.host is None:
        raise WrongState(f"container {other.name} has no host yet")
    if host is not None and host != other.host:
        raise InvalidInput(
            f"container {other.name} runs on {cluster.host_name(other.host)}, "
            f"its network can't be shared on {cluster.host_name(host)}"
        )
    return other
