"""Policies inside containers' namespaces, brought there and kept as they should be (`net.innerchains`).

Invariant: an endpoint on the site's network has no address before its policies stand.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from model.errors import CommandFailed
from net import innerchains
from net.endpoint import InstanceNetwork
from net.host import NetworkPlan
from net.kernel.base import Kernel
from net.nftscript import TABLE, table_script
from net.plan import on_site
from net.state import NftTable
from net.subnets import resolvers


class Fences:
    """Callers see to it that one call runs at a time."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._stand: dict[str, NftTable | None] = {}
        """By namespace, as far as this process has seen to it."""

    async def set(self, plan: NetworkPlan | None, instance: InstanceNetwork) -> None:
        """What the plan's policies mean for this container. Raises CommandFailed; then it is as it was."""
        if plan is None:
            return
        space = instance.namespace
        feet = [e for e in instance.endpoints if e.network in plan.networks and on_site(plan, e)]
        if not feet and space not in self._stand:
            return
        hosts = {e.network: resolvers(plan.networks[e.network]) for e in feet}
        want = innerchains.table(plan.policies, feet, hosts)
        if space in self._stand and self._stand[space] == want:
            return
        script, _ = table_script("inet", want, None)
        await self._kernel.fence(space, script or f"add table inet {TABLE}\ndelete table inet {TABLE}\n")
        self._stand[space] = want

    async def all(self, plan: NetworkPlan, instances: Iterable[InstanceNetwork]) -> CommandFailed | None:
        """Each on its own; the first failure."""
        failure = None
        for instance in instances:
            try:
                if self._kernel.has_namespace(Path(instance.namespace)):
                    await self.set(plan, instance)
            except CommandFailed as error:
                failure = failure or error
        return failure

    def forget(self, namespace: str) -> None:
        self._stand.pop(namespace, None)
