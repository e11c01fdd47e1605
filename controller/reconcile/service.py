"""One service: what should be, what is, and the plan between them. Pure.

Invariant: applied to its own result with nothing else changed, the plan is empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from msgspec.structs import replace

from controller import ingress
from controller.addressing import Leases
from controller.attachments import resolve_attachments
from controller.placing import Assigned, World, assign
from controller.plan import Item, Plan, delete, put
from controller.reconcile import per_host, replicated
from controller.reconcile.seats import Make, Outcome, Retire, Situation
from controller.schedule.fleet import Fleet, count_service, fleet_of
from controller.snapshot import Cluster
from model.errors import FlotaError
from model.events import Event
from model.ids import HostId, IdSource, InstanceId, ServiceId, short
from model.records import Condition, Desired, Instance, ResolvedAttachment, Service
from model.spec import Replicated
from model.status import HostReport

UNPLACED, FAILING, UNOPENED = "unplaced", "failing", "unopened"
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
    fleet = fleet_of(cluster, world.reports, world.settling)
    count_service(fleet, ident, instances)
    situation = Situation(hosts=cluster.hosts, statuses=world.statuses, now=now)
    if isinstance(service.spec.mode, Replicated):
        outcome = replicated.reconcile(service, instances, situation)
    else:
        outcome = per_host.reconcile(service, instances, situation, fleet)
    return _write(cluster, service, outcome, fleet, reports=world.reports, now=now, ids=ids)


def _write(
    cluster: Cluster,
    service: Service,
    outcome: Outcome,
    fleet: Fleet,
    *,
    reports: Mapping[HostId, HostReport],
    now: float,
    ids: IdSource,
) -> Plan:
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
        fresh = [_new(cluster, service, make, now, ids) for make in outcome.make]
    except FlotaError as error:
        fresh, problem = [], str(error)
    leases = Leases(cluster, now)
    try:
        items += _refooted(cluster, service, retired, extra, leases)
    except FlotaError as error:
        problem = problem or str(error)
    assigned = assign(cluster, [*waiting, *fresh], fleet, leases)
    reasons = {instance.id: instance.reason for instance in fresh}
    before = cluster.on_host(None)
    placed = [i for i in assigned.instances if i.host is not None or not i.pinned]
    items += [
        put(instance, reasons.get(instance.id) or instance.reason)
        for instance in placed
        if instance != before.get(instance.id)
    ]
    items += leases.items()
    proving = _proving(service, [*_staying(cluster, service, retired), *fresh], now)
    unopened = tuple(ingress.unopened(cluster, service, reports))
    conditions = _conditions(
        service, assigned, outcome, problem=problem, proving=bool(proving), unopened=unopened, now=now
    )
    if conditions != service.conditions:
        words = "; ".join(c.message for c in conditions) or "all is well again"
        items.append(put(replace(service, conditions=conditions), words))
    events = tuple(_event("create", instance, now) for instance in fresh)
    due = [at for at in (outcome.retry_at, *proving) if at is not None]
    return Plan(items=tuple(items), events=events, retry_at=min(due, default=None))


def _retired(cluster: Cluster, retire: Retire) -> Item:
    instance = retire.instance
    if instance.host is None or instance.host not in cluster.hosts:
        return delete(instance, retire.reason)
    idle = retire.desired is Desired.REMOVED and instance.desired is Desired.STOPPED
    changed = replace(instance, desired=retire.desired, idle=idle, reason=retire.reason)
    return put(changed, retire.reason)


def _new(cluster: Cluster, service: Service, make: Make, now: float, ids: IdSource) -> Instance:
    ident = InstanceId(ids())
    place = str(make.seat.slot) if make.seat.slot else cluster.host_name(make.seat.host)
    return Instance(
        id=ident,
        name=f"{service.spec.name}.{place}.{short(ident)}",
        spec=ingress.container_of(service),
        placement=service.spec.placement,
        service=service.id,
        service_name=service.spec.name,
        slot=make.seat.slot,
        generation=service.generation,
        host=make.seat.host,
        pinned=make.seat.host is not None,
        attachments=(
            *resolve_attachments(cluster, service.spec.container),
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
    return [i for i in cluster.of_service(service.id).values() if i.id not in retired]


def _proving(service: Service, instances: Iterable[Instance], now: float) -> list[float]:
    """When each young instance of a service that was failing will have proven itself."""
    if not any(condition.type == FAILING for condition in service.conditions):
        return []
    ages = (i.created_at for i in instances if i.desired is Desired.RUNNING)
    return [at + PROVEN for at in ages if at + PROVEN > now]


def _conditions(
    service: Service,
    assigned: Assigned,
    outcome: Outcome,
    *,
    problem: str,
    proving: bool,
    unopened: Iterable[str],
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
    found += [(UNOPENED, words) for words in unopened]
    since = {(c.type, c.message): c.since for c in service.conditions}
    return tuple(Condition(type=t, message=m, since=since.get((t, m), now)) for t, m in found)


def _event(action: str, instance: Instance, now: float) -> Event:
    return Event(
        type="container",
        action=action,
        id=instance.id,
        name=instance.name,
        at=now,
        attributes={"service": instance.service_name, "reason": instance.reason},
    )
