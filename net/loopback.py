"""Which bridges take answers for 127.0.0.1 now, changed by what differs alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from net.diff import Op
from net.endpoint import InstanceNetwork
from net.host import NetworkPlan
from net.plan import loopback_routing
from net.state import Sysctl


class LoopbackRouting:
    def __init__(self) -> None:
        self._stands: Mapping[str, str] = {}

    def stands(self, plan: NetworkPlan, instances: Iterable[InstanceNetwork]) -> None:
        """A comparison of everything made it so."""
        self._stands = loopback_routing(plan, instances)

    def changes(self, plan: NetworkPlan | None, instances: Iterable[InstanceNetwork]) -> list[Op]:
        """To be issued; taken for done."""
        if plan is None:
            return []
        before, self._stands = self._stands, loopback_routing(plan, instances)
        changed = (Sysctl(path=p, value=v) for p, v in self._stands.items() if before.get(p) != v)
        return [Op(verb="change", item=item) for item in changed]
