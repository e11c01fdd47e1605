"""Commands on services. Pure: each gives a Plan, or raises and changes nothing."""

from __future__ import annotations

from msgspec.structs import replace

from controller import fixed, ingress
from controller.attachments import check_published, resolve_attachments
from controller.commands.find import find_service
from controller.plan import Plan, put
from controller.reconcile.rollout import HALTED, OVER, ROLLING_BACK
from controller.revising import revised
from controller.snapshot import Cluster
from controller.vips import vips_of
from model.api import UpdateService
from model.errors import AlreadyExists, InvalidInput, StaleRevision, WrongState
from model.events import Event
from model.ids import ServiceId, short
from model.records import ResolvedAttachment, Rollout, Service
from model.servicerules import kept_up
from model.spec import Replicated, ServiceSpec
from model.validate import check, validate_service


def create(cluster: Cluster, spec: ServiceSpec, *, now: float, ident: ServiceId) -> Plan:
    """Record a new service; the reconcile loop makes its instances."""
    wanted, attachments = _checked(cluster, spec)
    for other in cluster.services.values():
        if other.spec.name == spec.name:
            hint = "it is still being removed" if other.removed else f"flota service update {spec.name}"
            raise AlreadyExists(f"the name {spec.name} is in use by service {short(other.id)}", hint=hint)
    vips = vips_of(cluster, ident, wanted, attachments, {})
    ports = ingress.numbered(cluster, ident, wanted.container)
    service = Service(id=ident, spec=wanted, vips=vips, ingress=ports, created_at=now, updated_at=now)
    return _plan(cluster, service, "create", now)


def update(cluster: Cluster, ref: str, request: UpdateService, now: float) -> Plan:
    """Replace the spec; instances follow by the service's update policy."""
    service = _living(cluster, ref)
    _check_revision(service, request.revision)
    if request.spec.name != service.spec.name:
        raise InvalidInput("a service can't be renamed", hint="Make a new one and remove this one")
    wanted, _ = _checked(cluster, request.spec)
    if type(wanted.mode) is not type(service.spec.mode):
        raise InvalidInput("the mode of a service can't change", hint="Make a new service")
    halted = service.rollout is not None and service.rollout.state in HALTED
    if wanted == service.spec and not halted:
        return Plan(subject=service.id)
    made_by = [(ingress.container_of(spec), spec.placement) for spec in (service.spec, wanted)]
    replaced = made_by[0] != made_by[1]
    rollout = Rollout(started_at=now) if replaced or halted else service.rollout
    previous = service.spec if replaced else _still_previous(service, wanted)
    changed = revised(cluster, service, wanted, previous=previous, rollout=rollout, now=now)
    return _plan(cluster, changed, "update", now)


def _still_previous(service: Service, wanted: ServiceSpec) -> ServiceSpec | None:
    """A change of replicas while others are replaced, or a word to go on, is nothing to go back to: what is
    taken back if that fails are the instances, not their number."""
    if service.rollout is None or service.rollout.state in OVER:
        return service.spec
    return None if service.previous is None else replace(service.previous, mode=wanted.mode)


def _check_revision(service: Service, read_at: int) -> None:
    """Raises StaleRevision for a change of what was read before another one; 0: whatever it is now."""
    if read_at and read_at != service.revision:
        raise StaleRevision(
            f"service {service.spec.name} changed since it was read (revision {service.revision})",
            hint="Read it again and repeat the change",
        )


def rollback(cluster: Cluster, ref: str, now: float, revision: int = 0) -> Plan:
    """Bring back the spec before the last change; done twice, it is the last change again."""
    service = _living(cluster, ref)
    _check_revision(service, revision)
    if service.previous is None:
        raise WrongState(f"service {service.spec.name} has no earlier spec to go back to")
    rollout = Rollout(state=ROLLING_BACK, started_at=now)
    spec = service.previous
    check("invalid service", validate_service(spec))
    changed = revised(cluster, service, spec, previous=service.spec, rollout=rollout, now=now)
    return _plan(cluster, changed, "update", now)


def scale(cluster: Cluster, ref: str, replicas: int, now: float) -> Plan:
    service = _living(cluster, ref)
    if not isinstance(service.spec.mode, Replicated):
        raise InvalidInput(f"service {service.spec.name} is global: it runs once on every host that fits")
    spec = replace(service.spec, mode=Replicated(replicas=replicas))
    request = UpdateService(spec=spec, revision=service.revision)
    return update(cluster, service.id, request, now)


def remove(cluster: Cluster, ref: str, now: float) -> Plan:
    """Mark it; its record goes after its last instance. Removing what is being removed changes nothing."""
    service = find_service(cluster, ref)
    if service.removed:
        return Plan(subject=service.id)
    return _plan(cluster, replace(service, removed=True, updated_at=now), "removing", now)


def _checked(cluster: Cluster, spec: ServiceSpec) -> tuple[ServiceSpec, tuple[ResolvedAttachment, ...]]:
    """The spec as it is stored, and its networks."""
    check("invalid service", validate_service(spec))
    attachments = resolve_attachments(cluster, spec.container)
    check_published(cluster, attachments, spec.container.ports)
    if isinstance(spec.mode, Replicated) and spec.mode.replicas:
        fixed.of_replica(cluster, attachments, spec.mode.replicas)  # raises where the list is too short
    return kept_up(spec), attachments


def _living(cluster: Cluster, ref: str) -> Service:
    service = find_service(cluster, ref)
    if service.removed:
        raise WrongState(f"service {service.spec.name} is being removed")
    return service


def _plan(cluster: Cluster, service: Service, action: str, now: float) -> Plan:
    event = Event(type="service", action=action, id=service.id, name=service.spec.name, at=now)
    items = [put(service, f"{action} by hand")]
    if service.ingress and not service.removed and ingress.NETWORK not in cluster.networks:
        items.append(put(ingress.network(cluster, now), f"{service.spec.name} publishes a port"))
    return Plan(items=tuple(items), events=(event,), subject=service.id)
