"""Commands on policies. Pure: each gives a Plan, or raises and changes nothing."""

from __future__ import annotations

from msgspec.structs import replace

from controller.commands.find import find_policy
from controller.plan import Plan, delete, put
from controller.snapshot import Cluster
from model.api import UpdatePolicy
from model.errors import AlreadyExists, InvalidInput, StaleRevision
from model.events import Event
from model.ids import PolicyId
from model.policy import PolicySpec
from model.policyrules import validate_policy
from model.records import Policy
from model.validate import check


def create(cluster: Cluster, spec: PolicySpec, *, now: float, ident: PolicyId) -> Plan:
    """Record a new policy; hosts enforce it as soon as they hear of it."""
    check("invalid policy", validate_policy(spec))
    if any(policy.spec.name == spec.name for policy in cluster.policies.values()):
        raise AlreadyExists(f"a policy named {spec.name} exists", hint=f"flota policy update {spec.name}")
    return _plan(Policy(id=ident, spec=spec, created_at=now, updated_at=now), "create", now)


def update(cluster: Cluster, ref: str, request: UpdatePolicy, now: float) -> Plan:
    """Replace the spec."""
    policy = find_policy(cluster, ref)
    if request.revision and request.revision != policy.revision:
        raise StaleRevision(
            f"policy {policy.spec.name} changed since it was read (revision {policy.revision})",
            hint="Read it again and repeat the change",
        )
    if request.spec.name != policy.spec.name:
        raise InvalidInput("a policy can't be renamed", hint="Make a new one and remove this one")
    check("invalid policy", validate_policy(request.spec))
    if request.spec == policy.spec:
        return Plan(subject=policy.id)
    return _plan(replace(policy, spec=request.spec, updated_at=now), "update", now)


def remove(cluster: Cluster, ref: str, now: float) -> Plan:
    """What it alone closed is open again."""
    policy = find_policy(cluster, ref)
    event = Event(type="policy", action="remove", id=policy.id, name=policy.spec.name, at=now)
    return Plan(items=(delete(policy, "removed by hand"),), events=(event,), subject=policy.id)


def _plan(policy: Policy, action: str, now: float) -> Plan:
    event = Event(type="policy", action=action, id=policy.id, name=policy.spec.name, at=now)
    return Plan(items=(put(policy, f"{action}d by hand"),), events=(event,), subject=policy.id)
