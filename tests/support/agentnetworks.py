"""Networks for an agent over fakes, instances on them, and what it makes of that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent.host import HostAgent
from agent.record import Local
from model.ids import NetworkId
from model.records import Instance, ResolvedAttachment
from model.spec import NetworkSpec, Subnet
from model.status import Endpoint
from model.view import NetworkView, View
from tests.support.agentlab import BRIDGE, bridge, ident, wish
from tests.support.waiting import until

ONE, TWO = NetworkId("1" * 64), NetworkId("2" * 64)


def network(ident_: NetworkId, name: str, cidr: str) -> NetworkView:
    spec = NetworkSpec(name=name, driver="bridge", subnets=(Subnet(cidr=cidr),))
    return NetworkView(id=ident_, spec=spec, vni=0, blocks=(cidr,))


NETWORKS = {
    BRIDGE: bridge(),
    ONE: network(ONE, "one", "10.21.0.0/24"),
    TWO: network(TWO, "two", "10.22.0.0/24"),
}


def on(box: Instance, *networks: NetworkId | ResolvedAttachment, **changes: Any) -> Instance:
    made = (n if isinstance(n, ResolvedAttachment) else ResolvedAttachment(network=n) for n in networks)
    return wish(box, attachments=tuple(made), **changes)


def view(*instances: Instance, revision: int = 1) -> View:
    """As the controller makes it: only networks that somebody is on."""
    used = {a.network for i in instances for a in i.attachments}
    networks = {ident_: found for ident_, found in NETWORKS.items() if ident_ in used}
    return View(revision=revision, instances={i.id: i for i in instances}, networks=networks, fleet_id="f")


def record(agent: HostAgent, number: int = 1) -> Local:
    return agent.workers[ident(number)].record


async def stands(agent: HostAgent, *networks: NetworkId) -> Sequence[Endpoint]:
    """Its endpoints, once they are on these networks and nothing is under way."""

    def settled() -> Sequence[Endpoint] | None:
        now = record(agent)
        there = [e.network for e in now.endpoints] == list(networks)
        return now.endpoints if there and not now.rewiring else None

    await until(lambda: settled() is not None, deadline=5, what=f"{networks}; is {record(agent)}")
    return record(agent).endpoints
