"""An agent keeps its resolver told: over a container's life, its own end, and without a controller."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from agent.host import HostAgent
from agent.naming import FakeNames
from model.directory import DirectoryDelta, Member
from model.ids import HostId, NetworkId
from model.records import Desired, Instance, ResolvedAttachment
from model.spec import NetworkSpec, Subnet
from model.status import Phase
from model.view import NetworkView
from net.resolver.state import ResolverState
from tests.support.agentlab import AgentLab, gone, ident, instance, phase, view, wish
from tests.support.waiting import until

BACK = NetworkId("b" * 64)
NETWORK = NetworkView(
    id=BACK,
    spec=NetworkSpec(name="back", subnets=(Subnet(cidr="10.1.0.0/16"),)),
    vni=1,
    blocks=("10.1.1.0/24",),
)


def box(number: int = 1, **more: Desired) -> Instance:
    return replace(instance(number, **more), attachments=(ResolvedAttachment(network=BACK),))


def seen(*instances: Instance, revision: int = 1):  # type: ignore[no-untyped-def]
    made = view(*instances, revision=revision)
    return replace(made, networks={**made.networks, BACK: NETWORK})


def names(agent: HostAgent) -> FakeNames:
    found = agent.context.names
    assert isinstance(found, FakeNames)
    return found


def last(agent: HostAgent) -> ResolverState:
    states = names(agent).states
    return states[-1] if states else ResolverState()


async def test_container_is_known_before_it_starts_and_named_while_it_runs(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.take_view(seen(box()))
        await phase(agent, 1, Phase.RUNNING)
        await until(lambda: "box1" in last(agent).zones[BACK].names, deadline=5)
        states = names(agent).states
        asking = next(n for n, state in enumerate(states) if state.clients)
        named = next(n for n, state in enumerate(states) if BACK in state.zones and state.zones[BACK].names)
        assert asking < named, "it may ask before it runs"
        conf = (agent.context.folder(ident(1)) / "resolv.conf").read_text()
        assert conf.splitlines()[0] == "nameserver 10.1.0.1"
        await agent.take_view(seen(wish(box(), desired=Desired.REMOVED), revision=2))
        await gone(agent, 1)
        await until(lambda: not last(agent).clients, deadline=5)
        assert not last(agent).zones[BACK].names


async def test_container_on_the_predefined_bridge_has_no_resolver(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.take_view(seen(instance()))
        await phase(agent, 1, Phase.RUNNING)
        conf = (agent.context.folder(ident(1)) / "resolv.conf").read_text()
        assert "10.1.0.1" not in conf and not last(agent).clients


async def test_members_on_other_hosts_come_and_go_and_outlive_the_agent(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    far = Member(name="far", host=HostId("there"), ipv4="10.1.2.2")
    async with lab.agent() as agent:
        await agent.take_view(seen(box()))
        agent.membership.take(DirectoryDelta(put={BACK: {ident(7): far}}), whole=True)
        await until(lambda: last(agent).zones and "far" in last(agent).zones[BACK].names, deadline=5)
        await phase(agent, 1, Phase.RUNNING)
    async with lab.agent() as agent:
        await until(lambda: last(agent).clients, deadline=5, what="the state without a controller's word")
        assert {"far", "box1"} <= set(last(agent).zones[BACK].names)
        agent.membership.take(DirectoryDelta(gone={BACK: (ident(7),)}), whole=False)
        await until(lambda: "far" not in last(agent).zones[BACK].names, deadline=5)


async def test_trouble_with_names_is_told_of_the_host(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        names(agent).troubles = ("names: cannot listen",)
        names(agent).changed()
        assert agent.host_report().conditions == ("names: cannot listen",)
