"""A service with another spec. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from controller import ingress, keptimages
from controller.attachments import resolve_attachments
from controller.snapshot import Cluster
from controller.vips import vips_of
from model.records import Rollout, Service
from model.spec import ServiceSpec


def revised(
    cluster: Cluster,
    service: Service,
    spec: ServiceSpec,
    *,
    previous: ServiceSpec | None,
    rollout: Rollout | None,
    now: float,
) -> Service:
    """Its next generation, with the addresses and ports that the spec needs. `spec` is valid. Raises NotFound
    for a network that is not there (any more), InUse for a port that another service has, Exhausted."""
    attachments = resolve_attachments(cluster, spec.container)
    generation = service.generation + 1
    if rollout is not None and rollout != service.rollout:
        rollout = replace(rollout, generation=generation)
    return replace(
        service,
        spec=spec,
        ingress=ingress.numbered(cluster, service.id, spec.container, service.ingress),
        vips=vips_of(cluster, service.id, spec, attachments, service.vips),
        former_images=keptimages.formerly(service, spec.container.image),
        previous=previous,
        rollout=rollout,
        generation=generation,
        updated_at=now,
    )
