"""One service: what should be, what is, and the plan between them. Pure.

Invariant: applied to its own result with nothing else changed, the plan is empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

from msgspec.structs import replace

from controller import fixed, ingress
from controller.addressing import Leases
from controller.attachments import resolve_attachments
from controller.placing import Assigned, World, assign
from controller.plan import Item, Plan, delete, put
from controller.reconcile import per_host, replicated
from controller.reconcile.rollout import ROLLING_BACK
from controller.reconcile.seat import Make, Outcome, Retire, Situation, serves
from controller.revising import revised
from controller.schedule.fleet import Fleet, count_service, fleet_of
from controller.short import shortages
from controller.snapshot import Cluster
from model.errors import FlotaError
from model.events import Event, of_container
from model.ids import IdSource, InstanceId, ServiceId, short
from model.records import Condition, Desired, Instance, ResolvedAttachment, Rollout, Service
from model.spec import Replicated

UNPLACED, FAILING, UNOPENED, ROLLOUT = "unplaced", "failing", "unopened", "rollout"
SHORT = "short"
"""Instances wait on their hosts for an address."""
PROVEN = 10.0
"""Seconds after which a replacement is believed to stay up."""


def plan_service(cluster: Cluster, ident: ServiceId, world: World, now: float, ids: IdSource) -> Plan:
    """Everything to write for this service now; empty if there is nothing to do or no such service."""
    service = cluster.services.get(ident)
    if service is None:
        return Plan()
    instances = list(cluster.of_service(ident).values())
    if service.removed and not instances:
        event = Event(type="service", action="remove", id=ident, name=service.spec.name, at=now)
        return Plan(items=(delete(service, "its last instance is gone"),), events=(event,))
    fleet = fleet_of(cluster, world.reports, world.settling, world.own)
    count_service(fleet, ident, instances)
    situation = Situation(hosts=cluster.hosts, statuses=world.statuses, now=now, prepulls=world.prepulls)
    if isinstance(service.spec.mode, Replicated):
        outcome = replicated.reconcile(service, instances, situation)
    else:
        outcome = per_host.reconcile(service, instances, situation, fleet)
    if outcome.rollout is not None and outcome.rollout != service.rollout:
        service, before = _rolled(cluster, service, outcome.rollout, now), service
    else:
        before = service
    told = [(UNOPENED, words) for words in ingress.unopened(cluster, service, world.reports)]
    found = shortages(cluster, instances, world.statuses, world.reports, now)
    told += [(SHORT, words) for words in found]
    if service.generation != before.generation:
        return _taken_back(service, now)
    return _write(cluster, service, before, outcome, fleet, situation, told, ids)


def _rolled(cluster: Cluster, service: Service, rollout: Rollout, now: float) -> Service:
    """With the rollout's next state, and with its last spec when that says so."""
    if rollout.state != ROLLING_BACK or service.previous is None:
        return replace(service, rollout=rollout)
    try:
        return revised(cluster, service, service.previous, previous=None, rollout=rollout, now=now)
    except FlotaError as error:
        words = f"{rollout.message}; it can't be taken back: {error}"
        return replace(service, rollout=replace(rollout, state="paused", message=words))


def _taken_back(service: Service, now: float) -> Plan:
    conditions = _conditions(service, Assigned(instances=()), Outcome(), problem="", proving=True, now=now)
    changed = replace(service, conditions=conditions)
    event = Event(type="service", action="update", id=service.id, name=service.spec.name, at=now)
    return Plan(items=(put(changed, conditions[-1].message),), events=(event,))


def _write(
    cluster: Cluster,
    service: Service,
    before: Service,
    outcome: Outcome,
    fleet: Fleet,
    situation: Situation,
    told: Iterable[tuple[str, str]],
    ids: IdSource,
) -> Plan:
    now = situation.now
    items = [_retired(cluster, retire) for retire in outcome.retire]
    retired = {retire.instance.id for retire in outcome.retire}
    problem = ""
    extra = ingress.attachments(cluster, service)
    waiting = [
        ingress.attached_as(i, extra)
        for i in sorted(cluster.on_host(None).values(), key=lambda i: (i.slot, i.id))
        if i.service == service.id and i.id not in retired and i.desired is Desired.RUNNING
    ]
    try:
        fresh = _made(cluster, service, outcome.make, now, ids)
    except FlotaError as error:
        fresh, problem = [], str(error)
    leases = Leases(cluster, now, situation.statuses)
    try:
        items += _refooted(cluster, service, retired, extra, leases)
    except FlotaError as error:
        problem = problem or str(error)
    assigned = assign(cluster, [*waiting, *fresh], fleet, leases)
    reasons = {instance.id: instance.reason for instance in fresh}
    was = cluster.on_host(None)
    placed = [i for i in assigned.instances if i.host is not None or not i.pinned]
    items += [
        put(instance, reasons.get(instance.id) or instance.reason)
        for instance in placed
        if instance != was.get(instance.id)
    ]
    items += leases.items()
    staying = [*_staying(cluster, service, retired), *fresh]
    proving = _proving(service, staying, now)
    unproven = outcome.vacant or bool(proving) or not all(serves(i, situation) for i in staying)
    conditions = _conditions(
        service, assigned, outcome, problem=problem, proving=unproven, told=told, now=now
    )
    if (changed := replace(service, conditions=conditions)) != before:
        items.append(put(changed, _words(changed, before)))
    events = tuple(_event("create", instance, now) for instance in fresh)
    due = [at for at in (outcome.retry_at, *proving) if at is not None]
    return Plan(items=tuple(items), events=events, retry_at=min(due, default=None))


def _words(service: Service, before: Service) -> str:
    if service.rollout != before.rollout and service.rollout is not None:
        return f"its update is {service.rollout.state}"
    return "; ".join(c.message for c in service.conditions) or "all is well again"


def _retired(cluster: Cluster, retire: Retire) -> Item:
    instance = retire.instance
    if instance.host is None or instance.host not in cluster.hosts:
        return delete(instance, retire.reason)
    idle = retire.desired is Desired.REMOVED and instance.desired is Desired.STOPPED
    changed = replace(instance, desired=retire.desired, idle=idle, reason=retire.reason)
    return put(changed, retire.reason)


def _made(
    cluster: Cluster, service: Service, makes: tuple[Make, ...], now: float, ids: IdSource
) -> list[Instance]:
    """New instances; what all of them have is looked up once. Raises NotFound, InvalidInput."""
    attached = resolve_attachments(cluster, service.spec.container) if makes else ()
    return [_new(cluster, service, make, attached, now, ids) for make in makes]


def _new(
    cluster: Cluster,
    service: Service,
    make: Make,
    attached: tuple[ResolvedAttachment, ...],
    now: float,
    ids: IdSource,
) -> Instance:
    ident = InstanceId(ids())
    place = str(make.seat.slot) if make.seat.slot else cluster.host_name(make.seat.host)
    return Instance(
        id=ident,
        name=f"{service.spec.name}.{place}.{short(ident)}",
        spec=ingress.container_of(service.spec),
        placement=service.spec.placement,
        service=service.id,
        service_name=service.spec.name,
        slot=make.seat.slot,
        generation=service.generation,
        host=make.seat.host,
        pinned=make.seat.host is not None,
        attachments=(
            *fixed.of_replica(cluster, attached, make.seat.slot),
            *ingress.attachments(cluster, service),
        ),
        created_at=now,
        reason=make.reason,
    )


def _refooted(
    cluster: Cluster,
    service: Service,
    retired: Set[InstanceId],
    extra: tuple[ResolvedAttachment, ...],
    leases: Leases,
) -> list[Item]:
    """Instances that run on get or lose their foot on the ingress network where they are."""
    items: list[Item] = []
    for instance in _staying(cluster, service, retired):
        changed = ingress.attached_as(instance, extra)
        if changed is instance or instance.host is None or instance.desired is not Desired.RUNNING:
            continue
        for attachment in extra:
            leases.ensure(cluster.networks[attachment.network], instance.host)
        items.append(put(changed, "its service's published ports were changed"))
    return items


def _staying(cluster: Cluster, service: Service, retired: Set[InstanceId]) -> list[Instance]:
    every = cluster.of_service(service.id).values()
    return [i for i in every if i.id not in retired and i.desired is Desired.RUNNING]


def _proving(service: Service, instances: Iterable[Instance], now: float) -> list[float]:
    """When each young instance of a service that was failing will have proven itself."""
    if not any(condition.type == FAILING for condition in service.conditions):
        return []
    return [i.created_at + PROVEN for i in instances if 0 <= now - i.created_at < PROVEN]


def _conditions(
    service: Service,
    assigned: Assigned,
    outcome: Outcome,
    *,
    problem: str,
    proving: bool,
    told: Iterable[tuple[str, str]] = (),
    now: float,
) -> tuple[Condition, ...]:
    """What stands against the service now; a condition that stays keeps its time."""
    found: list[tuple[str, str]] = []
    homeless = sum(instance.host is None for instance in assigned.instances)
    if homeless and assigned.explanation is not None:
        noun = "instance waits" if homeless == 1 else "instances wait"
        found.append((UNPLACED, f"{homeless} {noun} for a host: {assigned.explanation.text}"))
    if problem:
        found.append((UNPLACED, problem))
    endings = [r.reason for r in outcome.retire if r.desired is Desired.STOPPED]
    if endings:
        found.append((FAILING, f"an instance does not stay up: {endings[-1]}"))
    elif outcome.retry_at is not None or proving:
        found += [(c.type, c.message) for c in service.conditions if c.type == FAILING]
    found += told
    if said := _of_rollout(service):
        found.append((ROLLOUT, said))
    since = {(c.type, c.message): c.since for c in service.conditions}
    return tuple(Condition(type=t, message=m, since=since.get((t, m), now)) for t, m in found)


def _of_rollout(service: Service) -> str:
    """What people should know of it; empty if it just goes on, or is done."""
    rollout, name = service.rollout, service.spec.name
    if rollout is None or not rollout.message:
        return ""
    match rollout.state:
        case "paused":
            hint = f"`flota service rollback {name}` takes it back, an update of the service goes on"
            return f"the update is paused: {rollout.message}; {hint}"
        case "rollback_started":
            return f"the update is being taken back: {rollout.message}"
        case "rollback_paused":
            return f"taking the update back is paused: {rollout.message}"
        case "rollback_completed":
            return f"the last update was taken back: {rollout.message}"
        case _:
            return ""


def _event(action: str, instance: Instance, now: float) -> Event:
    return Event(
        type="container",
        action=action,
        id=instance.id,
        name=instance.name,
        at=now,
        attributes=of_container(
            instance.spec.labels, instance.spec.image, service=instance.service_name, reason=instance.reason
        ),
    )
