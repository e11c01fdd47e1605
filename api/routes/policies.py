"""Routes of network policies."""

from __future__ import annotations

from api.routes.route import ControllerCall
from model.api import PolicyExplanation, PolicyInfo, PolicyQuestion, UpdatePolicy
from model.policy import PolicySpec


async def list_(call: ControllerCall) -> list[PolicyInfo]:
    return list(call.port.list_policies())


async def get(call: ControllerCall) -> PolicyInfo:
    return call.port.get_policy(call.ref())


async def create(call: ControllerCall) -> PolicyInfo:
    return await call.port.create_policy(call.body_as(PolicySpec))


async def update(call: ControllerCall) -> PolicyInfo:
    return await call.port.update_policy(call.ref(), call.body_as(UpdatePolicy))


async def remove(call: ControllerCall) -> None:
    await call.port.remove_policy(call.ref())


async def explain(call: ControllerCall) -> PolicyExplanation:
    return call.port.explain_policies(call.query_as(PolicyQuestion))
