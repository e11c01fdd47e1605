"""Commands on plain containers. Pure: each gives a Plan, or raises and changes nothing."""

from __future__ import annotations

from msgspec.structs import asdict, replace

from controller.addressing import Leases
from controller.attachments import check_published, resolve_attachments, shared_with, sharing
from controller.commands.find import find_host, find_instance
from controller.names import invent
from controller.placing import World, assign
from controller.plan import Plan, put
from controller.schedule.filters import CHANGING, refused
from controller.schedule.fleet import demand_of, fleet_of
from controller.snapshot import Cluster
from model.api import CreateInstance, StopRequest
from model.errors import AlreadyExists, Exhausted, InvalidInput, WrongState
from model.events import Event, of_container
from model.ids import HostId, InstanceId, short
from model.limits import UpdateLimits
from model.records import Desired, Instance
from model.status import InstanceStatus, Phase
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
    assigned = assign(cluster, [instance], fleet_of(cluster, world.reports, world.settling), leases)
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
    """Run it; one that has ended gets a new attempt. One that runs already stays as it is. `hold`: one that
    has ended is as if it were only created, until it is started without.

    Raises Exhausted when its host has meanwhile given away what it needs."""
    instance = _plain(cluster, ref, "start")
    if instance.desired is Desired.PAUSED:
        raise WrongState(f"container {instance.name} is paused", hint=f"flota unpause {instance.name}")
    over = status is not None and status.phase.ended and status.attempt >= instance.attempt
    if instance.desired is Desired.RUNNING and not over:
        return Plan(subject=instance.id)
    _check_room(cluster, instance, world)
    again = over or instance.desired is Desired.STOPPED
    if hold:
        held = replace(
            instance, desired=Desired.CREATED, attempt=instance.attempt + 1, reason="a client attaches"
        )
        return Plan(items=(put(held, held.reason),) if again else (), subject=instance.id)
    changed = replace(
        instance,
        desired=Desired.RUNNING,
        attempt=instance.attempt + again,
        reason="started by hand",
    )
    return _plan(cluster, changed, "start", now)


def stop(cluster: Cluster, ref: str, request: StopRequest, now: float) -> Plan:
    """Stop it; stopping what is stopped changes nothing."""
    instance = _plain(cluster, ref, "stop")
    if instance.desired in (Desired.STOPPED, Desired.CREATED):
        return Plan(subject=instance.id)
    _check_grace(request)
    changed = replace(
        instance,
        desired=Desired.STOPPED,
        stop_signal=request.signal,
        stop_grace=request.grace,
        reason="stopped by hand",
    )
    return _plan(cluster, changed, "stop", now)


def restart(cluster: Cluster, ref: str, request: StopRequest, world: World, now: float) -> Plan:
    """A new attempt: the agent ends the present one first."""
    instance = _plain(cluster, ref, "restart")
    _check_grace(request)
    _check_room(cluster, instance, world)
    changed = replace(
        instance,
        desired=Desired.RUNNING,
        attempt=instance.attempt + (instance.desired is not Desired.CREATED),
        stop_signal=request.signal,
        stop_grace=request.grace,
        reason="restarted by hand",
    )
    return _plan(cluster, changed, "restart", now)


def pause(cluster: Cluster, ref: str, status: InstanceStatus | None, *, paused: bool, now: float) -> Plan:
    """Freeze or thaw a running container."""
    instance = _plain(cluster, ref, "pause")
    if paused and instance.desired is Desired.PAUSED:
        raise WrongState(f"container {instance.name} is paused already")
    if not paused and instance.desired is not Desired.PAUSED:
        raise WrongState(f"container {instance.name} is not paused")
    if paused and (
        instance.desired is not Desired.RUNNING or status is None or status.phase is not Phase.RUNNING
    ):
        raise WrongState(f"container {instance.name} is not running")
    desired = Desired.PAUSED if paused else Desired.RUNNING
    verb = "pause" if paused else "unpause"
    return _plan(cluster, replace(instance, desired=desired, reason=f"{verb}d by hand"), verb, now)


def remove(
    cluster: Cluster, ref: str, status: InstanceStatus | None, *, force: bool, volumes: bool, now: float
) -> Plan:
    """Remove it; one that may run needs `force`. A service's instance is replaced."""
    instance = find_instance(cluster, ref)
    if instance.desired is Desired.REMOVED:
        if not force or instance.force:
            return Plan(subject=instance.id)
    elif not force and _may_run(instance, status):
        raise WrongState(
            f"container {instance.name} is running",
            hint=f"Stop it first, or `flota rm -f {instance.name}`",
        )
    changed = replace(
        instance,
        desired=Desired.REMOVED,
        idle=instance.idle or instance.desired is Desired.STOPPED,
        force=force,
        remove_volumes=volumes,
        reason="removed by hand",
    )
    return _plan(cluster, changed, "remove", now)


def rename(cluster: Cluster, ref: str, name: str, now: float) -> Plan:
    instance = _plain(cluster, ref, "rename")
    problems = validate_name("container", name, "name")
    if problems:
        raise InvalidInput.of("invalid name", tuple(problems))
    if name == instance.name:
        raise InvalidInput(f"container {name} has this name already")
    check_name_free(cluster, name)
    return _plan(cluster, replace(instance, name=name), "rename", now)


def update_limits(cluster: Cluster, ref: str, request: UpdateLimits, now: float) -> Plan:
    """Raises WrongState for a service's, InvalidInput. What is not changed is not judged again: it may be of
    before a rule."""
    instance = _plain(cluster, ref, "change the limits of")
    given = {name: value for name, value in asdict(request).items() if value is not None}
    restart = given.pop("restart", instance.spec.restart)
    limits = replace(instance.spec.resources, **given)
    spec = replace(instance.spec, resources=limits, restart=restart)
    problems = [
        *(p for p in validate_container(spec) if p.path.startswith(("spec.resources", "spec.restart"))),
        *validate_placement(instance.placement, spec, "placement"),
    ]
    if problems:
        raise InvalidInput.of("invalid limits", tuple(problems))
    if spec == instance.spec:
        return Plan(subject=instance.id)
    return _plan(cluster, replace(instance, spec=spec), "update", now)


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


def _plan(cluster: Cluster, changed: Instance, action: str, now: float) -> Plan:
    told = (event(action, changed, cluster, now),) if action in OURS else ()
    return Plan(items=(put(changed, changed.reason),), events=told, subject=changed.id)


def _plain(cluster: Cluster, ref: str, verb: str) -> Instance:
    instance = find_instance(cluster, ref)
    if instance.service is not None:
        raise WrongState(
            f"can't {verb} {instance.name}: it belongs to service {instance.service_name}",
            hint=f"Change the service: flota service update {instance.service_name}",
        )
    if instance.desired is Desired.REMOVED:
        raise WrongState(f"container {instance.name} is being removed")
    return instance


def _check_room(cluster: Cluster, instance: Instance, world: World) -> None:
    """A stopped container has given its reservations and ports back."""
    host = instance.host
    if instance.desired is not Desired.STOPPED or host is None or host not in cluster.hosts:
        return
    candidate = fleet_of(cluster, world.reports)[host]
    demand = demand_of(instance.spec, instance.placement, pinned=host)
    refusal = refused(CHANGING, demand, candidate)
    if refusal is not None:
        name = candidate.host.spec.name
        raise Exhausted(f"container {instance.name} does not fit on {name} any more: {refusal}")


def _may_run(instance: Instance, status: InstanceStatus | None) -> bool:
    if instance.desired is Desired.CREATED:
        return status is not None and status.phase.live
    if status is not None and status.attempt >= instance.attempt:
        return not status.phase.ended and status.phase is not Phase.CREATED
    return instance.desired in (Desired.RUNNING, Desired.PAUSED)


def _check_grace(request: StopRequest) -> None:
    if request.grace is not None and not 0 <= request.grace <= 86400:
        raise InvalidInput(f"invalid grace of {request.grace:g} s", hint="Give 0 to 86400 seconds")


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
