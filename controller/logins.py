"""Logins of registries that the controller keeps for services and plain containers. Pure: what seals is
handed in.

Invariant: a login is given only to a host that has an instance of its owner, and only for the registry that
it was given for; it goes with its owner.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from controller.plan import Item, Plan, delete, put
from controller.snapshot import Cluster
from model.errors import NotFound
from model.ids import HostId, InstanceId
from model.records import Instance, KeptLogin
from model.registries import NOBODY, Login, registry_of

Seal = Callable[[bytes, str], bytes]
"""(text, what it is about) to what can be stored; the other way round, Damaged is raised for anything that
was not sealed about the same."""


def with_login(cluster: Cluster, plan: Plan, image: str, login: Login, seal: Seal) -> Plan:
    """The plan, which makes or changes an owner, and its login for the image's registry. Nobody: what is kept
    stays."""
    if not login or not plan.subject:
        return plan
    registry = registry_of(image)
    sealed = seal(msgspec.json.encode(login), _about(plan.subject, registry))
    old = cluster.logins.get(plan.subject)
    record = KeptLogin(
        id=plan.subject, registry=registry, sealed=sealed, revision=old.revision if old is not None else 0
    )
    item: Item = put(record, f"given with it for {registry}")
    return replace(plan, items=(*plan.items, item))


def for_pull(cluster: Cluster, host: HostId, ident: InstanceId, unseal: Seal) -> Login:
    """Who a host is when it pulls the image of an instance; nobody where nothing is kept. Raises NotFound
    when it is no instance of that host."""
    instance = cluster.instances.get(ident)
    if instance is None or instance.host != host:
        raise NotFound(f"no container {ident[:12]} on this host")
    return of_owner(cluster, _owner(instance), instance.spec.image, unseal)


def of_owner(cluster: Cluster, owner: str, image: str, unseal: Seal) -> Login:
    """What is kept for a service or a plain container, if it is for that image's registry; else nobody."""
    kept = cluster.logins.get(owner)
    if kept is None or kept.registry != registry_of(image):
        return NOBODY
    return msgspec.json.decode(unseal(kept.sealed, _about(kept.id, kept.registry)), type=Login)


def plan_login(cluster: Cluster, ident: str) -> Plan:
    """Away with it once its owner has gone."""
    kept = cluster.logins.get(ident)
    if kept is None or ident in cluster.services or ident in cluster.instances:
        return Plan()
    return Plan(items=(delete(kept, "what it was kept for has gone"),))


def _owner(instance: Instance) -> str:
    return instance.id if instance.service is None else instance.service


def _about(owner: str, registry: str) -> str:
    return f"login/{owner}/{registry}"
