"""Policies through the controller's port: what hosts are told of them, and what is explained."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from controller.commands import policies as commands
from model.api import CreateInstance, PolicyQuestion, UpdatePolicy
from model.errors import AlreadyExists, FlotaError, InvalidInput, NotFound, StaleRevision, WrongState
from model.ids import PolicyId
from model.policy import PolicyPeer, PolicyPort, PolicyRule, PolicySpec, Selector
from model.spec import Attachment, ContainerSpec, NetworkSpec, Replicated, ServiceSpec, Subnet
from model.status import Phase
from tests.support.agents import make_host
from tests.support.fleet import Fleet, fleet
from tests.support.waiting import until

BACK = NetworkSpec(name="back", subnets=(Subnet(cidr="10.50.0.0/16"),))
WEB_IN = PolicySpec(
    name="web-in",
    selects=Selector(container="web"),
    ingress=(PolicyRule(peers=(PolicyPeer(labels={"tier": "front"}),), ports=(PolicyPort(port=80),)),),
)
ONE, TWO = make_host(1), make_host(2)


async def run(f: Fleet, name: str, host: str, **labels: str) -> None:
    spec = ContainerSpec(
        image="busybox", networks=(Attachment(network="back"),), labels={"noise": "x", **labels}
    )
    await f.controller.create_instance(CreateInstance(spec=spec, name=name, host=host, start=True))
    await f.controller.wait_instance(name, "running")


async def test_policy_goes_to_hosts_that_run_what_it_selects_and_leaves_them() -> None:
    async with fleet(make_host(1), make_host(2)) as f:
        await f.controller.create_network(BACK)
        await run(f, "web", "host1")
        await run(f, "api", "host2", tier="front")
        one, two = (f.agents[make_host(n).id] for n in (1, 2))
        info = await f.controller.create_policy(WEB_IN)
        assert info.selected == ("web",)
        await until(lambda: list(one.view.policies.values()) == [WEB_IN], deadline=5)
        assert not two.view.policies
        network = f.controller.get_network("back").network.id

        def labels() -> list[dict[str, str]]:
            assert one.directory is not None
            return [dict(m.labels) for m in one.directory.networks[network].values() if m.name == "api"]

        await until(lambda: labels() == [{"tier": "front"}], deadline=5)
        await f.controller.remove_policy("web-in")
        await until(lambda: not one.view.policies, deadline=5)
        await until(lambda: labels() == [{}], deadline=5)


async def test_members_that_are_about_to_start_are_told_only_where_there_are_policies() -> None:
    async with fleet(make_host(1), make_host(2)) as f:
        await f.controller.create_network(BACK)
        await run(f, "web", "host1")
        await run(f, "api", "host2", tier="front")
        network = f.controller.get_network("back").network.id
        api = f.controller.get_instance("api")
        starting = replace(api.status, phase=Phase.CREATED)

        def known() -> list[bool]:
            members = f.controller.memberships.members(network)
            return [m.running for m in members.values() if m.name == "api"]

        await f.agents[make_host(2).id].report([starting])
        await until(lambda: known() == [], deadline=5)
        await f.controller.create_policy(WEB_IN)
        await until(lambda: known() == [False], deadline=5)


async def test_policy_is_changed_and_read_with_its_revision() -> None:
    async with fleet(make_host(1)) as f:
        made = await f.controller.create_policy(WEB_IN)
        with pytest.raises(AlreadyExists, match="policy update web-in"):
            await f.controller.create_policy(WEB_IN)
        closed = replace(WEB_IN, ingress=())
        request = UpdatePolicy(spec=closed, revision=made.policy.revision)
        changed = await f.controller.update_policy("web-in", request)
        assert changed.policy.spec == closed
        with pytest.raises(StaleRevision):
            await f.controller.update_policy("web-in", request)
        assert [p.policy.spec.name for p in f.controller.list_policies()] == ["web-in"]
        await f.controller.remove_policy(made.policy.id[:8])
        with pytest.raises(NotFound, match="policy ls"):
            f.controller.get_policy("web-in")


@pytest.mark.parametrize(
    "spec",
    [
        PolicySpec(name="x"),
        replace(WEB_IN, name="-"),
        replace(WEB_IN, ingress=(PolicyRule(peers=(PolicyPeer(),)),)),
    ],
)
async def test_policy_that_makes_no_sense_changes_nothing(spec: PolicySpec) -> None:
    async with fleet(make_host(1)) as f:
        with pytest.raises(InvalidInput):
            await f.controller.create_policy(spec)
        assert f.controller.list_policies() == []


async def explained(f: Fleet, source: str, target: str, port: int = 0) -> tuple[bool, str]:
    found = f.controller.explain_policies(PolicyQuestion(source=source, target=target, port=port))
    return found.allowed, "\n".join(found.lines)


async def test_explain_names_the_rule_that_decides() -> None:
    async with fleet(make_host(1), make_host(2)) as f:
        await f.controller.create_network(BACK)
        await run(f, "web", "host1")
        await run(f, "api", "host2", tier="front")
        await run(f, "odd", "host2")
        assert await explained(f, "odd", "web", 80) == (
            True,
            "network back, odd (10.50.1.14) → web (10.50.0.11): allowed\n"
            "  egress of odd: open, no policy selects it\n"
            "  ingress of web: open, no policy selects it",
        )
        await f.controller.create_policy(WEB_IN)
        out = PolicySpec(
            name="odd-out",
            selects=Selector(container="odd"),
            egress=(PolicyRule(peers=(PolicyPeer(outside=True),)),),
        )
        await f.controller.create_policy(out)
        allowed, words = await explained(f, "api", "web", 80)
        assert allowed and "allowed by policy web-in, rule 1 (label=tier=front, port 80/tcp)" in words
        allowed, words = await explained(f, "api", "web", 81)
        assert not allowed and "ingress of web: denied, policy web-in and no rule that allows it" in words
        allowed, words = await explained(f, "api", "web")
        assert allowed and "allowed to port 80/tcp only" in words
        allowed, words = await explained(f, "odd", "web", 80)
        assert not allowed and "egress of odd: denied" in words and "ingress of web: denied" in words
        assert (await explained(f, "odd", "192.0.2.77", 443))[0]
        assert not (await explained(f, "192.0.2.77", "web", 80))[0]
        for source, target, error in (
            ("nobody", "web", NotFound),
            ("192.0.2.1", "192.0.2.2", InvalidInput),
        ):
            with pytest.raises(error):
                await explained(f, source, target)
        reasons = f.controller.why("web").reasons
        assert "policy web-in: ingress label=tier=front, port 80/tcp" in reasons


async def test_explain_of_ends_without_a_common_network_or_without_addresses() -> None:
    async with fleet(make_host(1)) as f:
        await f.controller.create_network(BACK)
        await run(f, "web", "host1")
        spec = ContainerSpec(image="busybox")
        await f.controller.create_instance(CreateInstance(spec=spec, name="lone", host="host1", start=True))
        await f.controller.wait_instance("lone", "running")
        assert not (await explained(f, "lone", "web"))[0]
        nobody = ServiceSpec(name="none", container=spec, mode=Replicated(replicas=0))
        await f.controller.create_service(nobody)
        with pytest.raises(FlotaError) as caught:
            await explained(f, "none", "web")
        assert isinstance(caught.value, WrongState)


def test_commands_are_pure_and_say_why() -> None:
    from controller.snapshot import Cluster

    plan = commands.create(Cluster(), WEB_IN, now=1.0, ident=PolicyId("a" * 64))
    assert [item.reason for item in plan.items] == ["created by hand"]
    assert [(e.type, e.action, e.name) for e in plan.events] == [("policy", "create", "web-in")]
