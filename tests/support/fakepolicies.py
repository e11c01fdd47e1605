"""Policies of the fleet in memory."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from model import api as m
from model.ids import PolicyId, resolve
from model.policy import PolicySpec
from model.policyrules import validate_policy
from model.records import Policy
from model.validate import check


class FakePolicies:
    """The policies' part of `api.ports.ControllerPort`: kept, never enforced."""

    def __init__(self) -> None:
        self.policies: dict[PolicyId, Policy] = {}
        self.asked: list[m.PolicyQuestion] = []

    def list_policies(self) -> Sequence[m.PolicyInfo]:
        return [m.PolicyInfo(policy=policy, selected=("web.1",)) for policy in self.policies.values()]

    def get_policy(self, ref: str) -> m.PolicyInfo:
        names = [(i, p.spec.name) for i, p in self.policies.items()]
        policy = self.policies[PolicyId(resolve("policy", ref, names))]
        return m.PolicyInfo(policy=policy, selected=("web.1",))

    async def create_policy(self, spec: PolicySpec) -> m.PolicyInfo:
        check("invalid policy", validate_policy(spec))
        ident = PolicyId(f"{len(self.policies) + 1:064x}")
        self.policies[ident] = Policy(id=ident, spec=spec, created_at=time.time(), revision=1)
        return self.get_policy(ident)

    async def update_policy(self, ref: str, request: m.UpdatePolicy) -> m.PolicyInfo:
        check("invalid policy", validate_policy(request.spec))
        policy = self.get_policy(ref).policy
        self.policies[policy.id] = msgspec.structs.replace(policy, spec=request.spec)
        return self.get_policy(policy.id)

    async def remove_policy(self, ref: str) -> None:
        del self.policies[self.get_policy(ref).policy.id]

    def explain_policies(self, question: m.PolicyQuestion) -> m.PolicyExplanation:
        self.asked.append(question)
        return m.PolicyExplanation(allowed=question.port == 80, lines=("network back, a → b: so",))
