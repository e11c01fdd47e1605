"""What an endpoint that comes or goes means to shortcuts that stand (`net.shortcuts`). Pure."""

from __future__ import annotations

from net import shortcuts
from net.backend.base import Member
from net.diff import Operation, nft_operations
from net.endpoint import InstanceNetwork
from net.host import NetworkPlan
from net.hostfirewall import HostFirewall
from net.plan import around, scene_of, traits_of


def home_changes(
    plan: NetworkPlan, before: InstanceNetwork, after: InstanceNetwork, firewall: HostFirewall
) -> tuple[Operation, ...]:
    """Of one instance, and nothing else."""
    if not firewall.alone or before.endpoints == after.endpoints:
        return ()
    near = around(plan, (before, after))
    scene = scene_of(near)
    members = [Member(view=v, traits=traits_of(v, scene)) for _, v in sorted(near.networks.items())]
    now, then = (shortcuts.elements(members, near.policies, i.endpoints) for i in (after, before))
    return nft_operations({"netdev": now}, {"netdev": then})
