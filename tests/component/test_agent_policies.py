"""An agent closes what policies select before it has an address, and lets members in as they come."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from agent.lifecycle import ADMISSION
from model.directory import DirectoryDelta, Member
from model.errors import CommandFailed
from model.ids import HostId, InstanceId, NetworkId, PolicyId, ServiceId
from model.policy import PolicyPeer, PolicyRule, PolicySpec, Selector
from model.records import Desired, Instance
from model.status import Endpoint, Phase
from model.view import NetworkView, ServiceView, service_key
from net.host import NetworkPlan, predefined_bridge
from net.policy import HostPolicies, endpoint_key
from tests.support.agentlab import BRIDGE, AgentLab, bridge, gone, ident, instance, phase, view, wish
from tests.support.waiting import until

POLICY = PolicySpec(
    name="p",
    selects=Selector(container="box1"),
    ingress=(PolicyRule(peers=(PolicyPeer(service="api"), PolicyPeer(container="box2"))),),
)
POLICIES = {PolicyId("b" * 64): POLICY}


def allowed(policies: HostPolicies) -> set[str]:
    """Addresses that box1 lets in."""
    chosen = policies.endpoints[endpoint_key(ident(1), BRIDGE)]
    return set(policies.classes[chosen.ingress][f"{chosen.ingress}-a4"].elements)


async def test_endpoint_is_selected_before_it_is_attached_and_until_it_is_gone(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    seen: list[bool] = []
    attach = lab.network.attach

    async def watched(request: Any) -> Endpoint:
        seen.append(endpoint_key(ident(1), BRIDGE) in lab.network.policies.endpoints)
        made: Endpoint = await attach(request)
        return made

    lab.network.attach = watched
    box = instance()
    async with lab.agent() as agent:
        await agent.take_view(replace(view(box), policies=POLICIES))
        await phase(agent, 1, Phase.RUNNING)
        assert seen == [True]
        removed = wish(box, desired=Desired.REMOVED, force=True)
        await agent.take_view(replace(view(removed, revision=2), policies=POLICIES))
        await gone(agent, 1)
    async with lab.agent() as agent:
        await agent.take_view(view(revision=3))
        assert lab.network.policies == HostPolicies()


async def test_members_of_other_hosts_and_own_containers_are_let_in_as_they_come(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    api = Member(name="api.1", host=HostId("cc" * 32), service_name="api", ipv4="10.9.0.77", running=False)
    async with lab.agent() as agent:
        await agent.take_view(replace(view(instance(1)), policies=POLICIES))
        await phase(agent, 1, Phase.RUNNING)
        assert allowed(lab.network.policies) == set()
        there = InstanceId("77" * 32)
        agent.membership.take(DirectoryDelta(put={BRIDGE: {there: api}}), whole=False)
        await until(lambda: allowed(lab.network.policies) == {"10.9.0.77"}, deadline=5)
        await agent.take_view(replace(view(instance(1), instance(2), revision=2), policies=POLICIES))
        two = (await phase(agent, 2, Phase.RUNNING)).endpoints[0].ipv4
        await until(lambda: allowed(lab.network.policies) == {"10.9.0.77", two}, deadline=5)
        agent.membership.take(DirectoryDelta(gone={BRIDGE: (there,)}), whole=False)
        await until(lambda: allowed(lab.network.policies) == {two}, deadline=5)
    async with lab.agent() as agent:
        assert allowed(lab.network.policies) == {two}, "from the journal, without a controller"


async def test_policies_that_the_kernel_refuses_are_told_of_and_tried_again(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    police = lab.network.police

    async def refused(policies: HostPolicies) -> None:
        raise CommandFailed("no")

    async with lab.agent() as agent:
        await agent.take_view(view(instance(1)))
        await phase(agent, 1, Phase.RUNNING)
        lab.network.police = refused
        await agent.take_view(replace(view(instance(1), revision=2), policies=POLICIES))
        assert "policies: no" in agent.host_report().conditions
        lab.network.police = police
        await agent.take_view(replace(view(instance(1), revision=3), policies=POLICIES))
        assert not agent.host_report().conditions
        assert allowed(lab.network.policies) == set()


async def test_policies_are_in_force_before_an_instance_comes_though_its_plan_is_refused(
    tmp_path: Path,
) -> None:
    lab = AgentLab(tmp_path)
    seen: list[bool] = []
    attach = lab.network.attach

    async def watched(request: Any) -> Endpoint:
        seen.append(endpoint_key(ident(1), BRIDGE) in lab.network.policies.endpoints)
        made: Endpoint = await attach(request)
        return made

    lab.network.attach = watched
    async with lab.agent() as agent:
        await agent.take_view(view())
        lab.network.refusal = "network a: mtu 9000 is more than the link below it carries"
        brought = replace(view(instance(), revision=2), policies=POLICIES, vxlan_port=4790)
        await agent.take_view(brought)
        assert agent.host_report().conditions == (f"network: {lab.network.refusal}",)
        await phase(agent, 1, Phase.RUNNING)
        assert seen == [True]


async def test_policies_that_a_plan_brings_end_their_trouble(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    lab.network.police, police = refuse, lab.network.police
    async with lab.agent() as agent:
        await agent.take_view(replace(view(instance()), vxlan_port=4789))
        await agent.take_view(replace(view(instance(), revision=2), policies=POLICIES))
        assert "policies: nft refused" in agent.host_report().conditions
        lab.network.police = police
        await agent.take_view(replace(view(instance(), revision=3), policies=POLICIES, vxlan_port=4790))
        assert not agent.host_report().conditions


async def test_departure_is_followed_only_once_balancing_is_though_the_plan_is_refused(
    tmp_path: Path,
) -> None:
    lab = AgentLab(tmp_path)
    web, new = ServiceId("web"), NetworkId("n" * 64)
    network = replace(bridge(), vip_ranges=("10.99.0.0/24",))
    key, other = service_key(BRIDGE, web), service_key(new, web)
    served = {key: ServiceView(name="web", ipv4="10.99.0.1")}
    member = Member(name="web.1", host=HostId("cc" * 32), service=web, ipv4="10.9.0.77", ready=True)
    first = replace(view(), networks={BRIDGE: network}, services=served)
    members = DirectoryDelta(put={BRIDGE: {InstanceId("c"): member}})
    async with lab.agent() as agent:
        agent.membership.begin()
        await agent.take_view(first)
        agent.membership.take(members, whole=True, serial=1)
        await until(lambda: agent.membership._followed == 1, deadline=5)
        assert lab.network.services[key].members
        lab.network.refusal = "network a: mtu 9000 is more than the link below it carries"
        agent.membership.take(DirectoryDelta(gone={BRIDGE: (InstanceId("c"),)}), whole=False, serial=2)
        added = NetworkView(id=new, spec=predefined_bridge("10.8.0.0/24"), vni=0, blocks=("10.8.0.0/24",))
        both = {BRIDGE: network, new: replace(added, vip_ranges=("10.98.0.0/24",))}
        services = {**served, other: ServiceView(name="web", ipv4="10.98.0.1")}
        await agent.take_view(replace(first, revision=2, networks=both, services=services))
        await until(lambda: not lab.network.services[key].members, deadline=5)
        await until(lambda: any("10.98.0.1" in c for c in agent.host_report().conditions), deadline=5)
        assert agent.membership._followed == 1, "of the refused network's services"
        lab.network.refusal = ""
        await agent.take_view(replace(first, revision=3, networks=both, services=services))
        await until(lambda: agent.membership._followed == 2, deadline=10)
        assert lab.network.services.keys() == {key, other}


async def test_what_a_plan_brings_is_followed_only_once_the_plan_stands(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    web = ServiceId("web")
    served = {service_key(BRIDGE, web): ServiceView(name="web", ipv4="10.99.0.1")}
    network = replace(bridge(), vip_ranges=("10.99.0.0/24",))
    first = replace(view(), networks={BRIDGE: network}, services=served)
    member = Member(name="web.1", host=HostId("cc" * 32), service=web, ipv4="10.9.0.77", ready=True)
    early: list[bool] = []
    async with lab.agent() as agent:
        agent.membership.begin()
        await agent.take_view(first)
        followed = asyncio.create_task(agent.membership.followed())
        apply = lab.network.apply

        async def slow(plan: NetworkPlan) -> None:
            early.append(bool((await asyncio.wait((followed,), timeout=0.1))[0]))
            await apply(plan)

        lab.network.apply = slow
        # In one turn: the plan takes the member along before whoever tells of services has looked.
        agent.membership.take(DirectoryDelta(put={BRIDGE: {InstanceId("c"): member}}), whole=True, serial=1)
        await agent.take_view(replace(first, revision=2, vxlan_port=4790))
        assert early == [False]
        assert await followed == 1


async def test_services_of_which_it_broke_off_telling_are_told_again(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    web = ServiceId("web")
    key = service_key(BRIDGE, web)
    network = replace(bridge(), vip_ranges=("10.99.0.0/24",))
    first = replace(
        view(), networks={BRIDGE: network}, services={key: ServiceView(name="web", ipv4="10.99.0.1")}
    )
    member = Member(name="web.1", host=HostId("cc" * 32), service=web, ipv4="10.9.0.77", ready=True)
    broken = asyncio.Event()

    async def breaks(changes: Any) -> None:
        broken.set()
        lab.network.serve = serve
        raise RuntimeError("not thought of")

    async with lab.agent() as agent:
        await agent.take_view(first)
        lab.network.serve, serve = breaks, lab.network.serve
        agent.membership.take(DirectoryDelta(put={BRIDGE: {InstanceId("c"): member}}), whole=True)
        await asyncio.wait_for(broken.wait(), 5)
        await until(lambda: lab.network.services[key].members, deadline=15)


async def test_start_waits_for_the_hosts_that_judge_while_somebody_can_say_so(tmp_path: Path) -> None:
    """A machine that stands still makes a start late, never early: one that is prompt is enough."""
    lab, boxes = AgentLab(tmp_path), list[Instance]()
    async with lab.agent() as agent:

        async def prompt(*, said: bool) -> bool:
            boxes.append(instance(len(boxes) + 1))
            began = agent.context.clock.now()
            await agent.take_view(replace(view(*boxes, revision=len(boxes)), judged=True))
            if said:
                status = await phase(agent, len(boxes), Phase.CREATED, Phase.RUNNING)
                assert status.endpoints, "its addresses are told meanwhile"
                agent.workers[boxes[-1].id].arrived()
            await phase(agent, len(boxes), Phase.RUNNING)
            return agent.context.clock.now() < began + ADMISSION

        agent.membership.begin()
        assert await prompt(said=True) or await prompt(said=True) or await prompt(said=True)
        agent.membership.end()
        words = "nobody would say anything"
        assert await prompt(said=False) or await prompt(said=False) or await prompt(said=False), words


async def test_start_waits_for_a_second_at_most(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        agent.membership.begin()
        began = agent.context.clock.now()
        await agent.take_view(replace(view(instance()), judged=True))
        started = (await phase(agent, 1, Phase.RUNNING)).started_at
        assert ADMISSION - 0.1 < started - began < ADMISSION + 2


async def test_what_is_followed_is_in_the_packet_filter_too(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    api = Member(name="api.1", host=HostId("cc" * 32), service_name="api", ipv4="10.9.0.77", running=False)
    lab.network.police, police = refuse, lab.network.police
    async with lab.agent() as agent:
        agent.membership.begin()
        await agent.take_view(replace(view(instance()), policies=POLICIES))
        agent.membership.take(DirectoryDelta(put={BRIDGE: {InstanceId("c"): api}}), whole=True, serial=1)
        await until(lambda: any("policies" in c for c in agent.host_report().conditions), deadline=5)
        assert agent.membership._followed == 0
        lab.network.police = police
        agent.membership.take(DirectoryDelta(), whole=False, serial=2)
        await until(lambda: agent.membership._followed == 2, deadline=5)
        assert lab.network.policies.endpoints


async def refuse(policies: HostPolicies) -> None:
    raise CommandFailed("nft refused")
