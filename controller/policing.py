"""The controller's part of policies: who may speak with whom."""

from __future__ import annotations

from collections.abc import Sequence

from controller import explain, queries
from controller.commands import policies
from controller.commands.find import find_policy
from controller.restoring import Restoring
from model.api import PolicyExplanation, PolicyInfo, PolicyQuestion, UpdatePolicy
from model.ids import PolicyId
from model.policy import PolicySpec


class Policing(Restoring):
    """`controller.controller.Controller` is one."""

    def list_policies(self) -> Sequence[PolicyInfo]:
        cluster = self.snapshot()
        ordered = sorted(cluster.policies.values(), key=lambda p: p.spec.name)
        return [queries.policy_info(cluster, policy) for policy in ordered]

    def get_policy(self, ref: str) -> PolicyInfo:
        cluster = self.snapshot()
        return queries.policy_info(cluster, find_policy(cluster, ref))

    async def create_policy(self, spec: PolicySpec) -> PolicyInfo:
        ident, now = PolicyId(self.ids()), self.clock.now()
        await self._command(lambda c: policies.create(c, spec, now=now, ident=ident))
        return self.get_policy(ident)

    async def update_policy(self, ref: str, request: UpdatePolicy) -> PolicyInfo:
        plan = await self._command(lambda c: policies.update(c, ref, request, self.clock.now()))
        return self.get_policy(plan.subject)

    async def remove_policy(self, ref: str) -> None:
        await self._command(lambda c: policies.remove(c, ref, self.clock.now()))

    def explain_policies(self, question: PolicyQuestion) -> PolicyExplanation:
        return explain.explain(self.snapshot(), self.statuses.by_id, question)
