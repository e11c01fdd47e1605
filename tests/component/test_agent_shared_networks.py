"""Containers on the network of another; over fakes."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from agent import endpoints
from model.spec import Attachment
from model.status import Phase
from tests.support.agentlab import BRIDGE, AgentLab, ident, instance, phase
from tests.support.agentnetworks import ONE, on, record, stands, view
from tests.support.waiting import until


async def test_one_that_shares_a_network_that_is_just_going_makes_no_empty_one(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    guest = on(instance(2, networks=(Attachment(network="container:box1"),)))
    async with lab.agent() as agent:
        await agent.take_view(view(instance(1)))
        await phase(agent, 1, Phase.RUNNING)
        await lab.network.drop_namespace(ident(1))
        await agent.take_view(view(instance(1), guest, revision=2))
        await until(lambda: "no network namespace" in agent.workers[ident(2)].record.message, deadline=5)
        assert ident(1) not in lab.network.spaces


async def test_one_that_shares_anothers_network_has_what_that_shares(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    words = ("host", "container:box1", "container:box2")
    boxes = [on(instance(n, networks=(Attachment(network=w),))) for n, w in enumerate(words, start=1)]
    async with lab.agent() as agent:
        for count in range(1, len(boxes) + 1):
            await agent.take_view(view(*boxes[:count], revision=count))
            await phase(agent, count, Phase.RUNNING)
        assert lab.network.spaces == {}


async def test_one_that_shares_with_one_that_shares_has_the_endpoints_and_files_of_the_first(
    tmp_path: Path,
) -> None:
    lab = AgentLab(tmp_path)
    words = (None, "container:box1", "container:box2")
    boxes = [
        on(instance(n, networks=(Attachment(network=w),))) if w else instance(n)
        for n, w in enumerate(words, start=1)
    ]
    async with lab.agent() as agent:
        for count in range(1, len(boxes) + 1):
            await agent.take_view(view(*boxes[:count], revision=count))
            await phase(agent, count, Phase.RUNNING)
        first = record(agent).endpoints
        assert first and endpoints.in_namespace(agent.context, boxes[2], ()) == first
        assert mounted(lab, 3, "hosts") == mounted(lab, 1, "hosts")


async def test_containers_that_were_renamed_into_a_circle_of_shared_networks_are_refused(
    tmp_path: Path,
) -> None:
    lab = AgentLab(tmp_path)
    first = instance(1)
    second = on(instance(2, networks=(Attachment(network="container:box1"),)))
    third = on(instance(3, networks=(Attachment(network="container:box2"),)))
    late = on(instance(4, networks=(Attachment(network="container:box2"),)))
    async with lab.agent() as agent:
        for revision, boxes in enumerate(((first,), (first, second), (first, second, third)), start=1):
            await agent.take_view(view(*boxes, revision=revision))
            await phase(agent, revision, Phase.RUNNING)
        renamed = (replace(first, name="other"), second, replace(third, name="box1"))
        await agent.take_view(view(*renamed, late, revision=4))
        await phase(agent, 4, Phase.FAILED)
        assert "each other" in agent.workers[ident(4)].record.message


def mounted(lab: AgentLab, number: int, name: str) -> Path:
    """What a container has at that place in /etc."""
    mounts = lab.fakes[0].bundle(ident(number)).config["mounts"]
    return Path(next(m["source"] for m in mounts if m["destination"] == f"/etc/{name}"))


async def test_one_that_shares_a_containers_network_has_its_hosts_file_too(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    mode = (Attachment(network="container:box1"),)
    guest = on(instance(2, networks=mode))
    picky = on(instance(3, networks=mode, extra_hosts=("db:192.0.2.7",), dns=("192.0.2.8",)))

    async with lab.agent() as agent:
        await agent.take_view(view(instance()))
        first = (await phase(agent, 1, Phase.RUNNING)).endpoints[0].ipv4
        await agent.take_view(view(instance(), guest, picky, revision=2))
        await phase(agent, 2, Phase.RUNNING)
        await phase(agent, 3, Phase.RUNNING)
        for name in ("hosts", "resolv.conf"):
            assert mounted(lab, 2, name) == mounted(lab, 1, name) != mounted(lab, 3, name)
        assert f"{first}\t" in mounted(lab, 2, "hosts").read_text()
        own = mounted(lab, 3, "hosts").read_text()
        assert f"{first}\t" in own and "192.0.2.7\tdb" in own
        assert "nameserver 192.0.2.8" in mounted(lab, 3, "resolv.conf").read_text()
        await agent.take_view(view(on(instance(), BRIDGE, ONE, revision=3), guest, picky, revision=3))
        second = (await stands(agent, BRIDGE, ONE))[1].ipv4
        assert f"{second}\t" in mounted(lab, 2, "hosts").read_text()
