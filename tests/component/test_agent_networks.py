"""Networks and ports of containers that live, changed under them; over fakes, and cut short at any step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from model.records import Desired, Instance, ResolvedAttachment
from model.spec import Attachment, Publish
from model.status import Endpoint, Phase
from tests.support.agentlab import BRIDGE, AgentLab, gone, ident, instance, phase, wish
from tests.support.agentnetworks import NETWORKS, ONE, TWO, on, record, stands, view
from tests.support.tripwire import Side, Tripwire, until_crash
from tests.support.waiting import until

MOST = 60


async def test_a_running_container_is_connected_and_disconnected_under_its_process(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    box = instance()
    async with lab.agent() as agent:
        await agent.take_view(view(box))
        first = await phase(agent, 1, Phase.RUNNING)
        await agent.take_view(view(on(box, BRIDGE, ONE), revision=2))
        old, new = await stands(agent, BRIDGE, ONE)
        assert (old.ifname, new.ifname, new.ipv4) == ("eth0", "eth1", "10.21.0.2")
        text = (tmp_path / "state/containers" / ident(1) / "hosts").read_text()
        assert "10.21.0.2\t" in text and old.ipv4 in text
        await agent.take_view(view(on(box, ONE, TWO), revision=3))
        one, two = await stands(agent, ONE, TWO)
        assert (one.ifname, one.ipv4, two.ifname) == ("eth1", "10.21.0.2", "eth2")
        assert sorted(lab.network.endpoints) == [(ident(1), ONE), (ident(1), TWO)]
        text = (tmp_path / "state/containers" / ident(1) / "hosts").read_text()
        assert old.ipv4 not in text and two.ipv4 in text
        assert (BRIDGE, old.ipv4) not in agent.context.addresses.held()
        last = await phase(agent, 1, Phase.RUNNING)
        assert (last.pid, last.restarts) == (first.pid, 0)
        report = await agent.reporter.next()
        moves = [(e.action, e.name) for e in report.events if e.type == "network"]
        assert moves == [
            ("connect", "bridge"),
            ("connect", "one"),
            ("disconnect", "bridge"),
            ("connect", "two"),
        ]
        await agent.take_view(view(on(box, desired=Desired.REMOVED, force=True), revision=4))
        await gone(agent, 1)
    assert lab.leaks() == {}


async def test_network_goes_from_the_host_only_once_the_last_container_has_left_it(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    box = instance()
    async with lab.agent() as agent:
        await agent.take_view(view(box))
        await phase(agent, 1, Phase.RUNNING)
        carried: list[set[str]] = []
        attach = lab.network.attach

        async def watched(request: Any) -> Endpoint:
            carried.append(set(lab.network.plan.networks))
            made: Endpoint = await attach(request)
            return made

        lab.network.attach = watched
        await agent.take_view(view(on(box, ONE), revision=2))
        await stands(agent, ONE)
        assert carried == [{BRIDGE, ONE}]
        await until(lambda: set(lab.network.plan.networks) == {ONE}, deadline=5)


async def test_one_started_without_a_network_can_be_connected_and_keeps_it_over_a_restart(
    tmp_path: Path,
) -> None:
    lab = AgentLab(tmp_path)
    box = on(instance(networks=(Attachment(network="none"),)))
    async with lab.agent() as agent:
        await agent.take_view(view(box))
        assert not (await phase(agent, 1, Phase.RUNNING)).endpoints
        await agent.take_view(view(on(box, TWO), revision=2))
        [foot] = await stands(agent, TWO)
        assert foot.ifname == "eth0"
        await agent.take_view(view(on(box, TWO, attempt=2), revision=3))
        await until(lambda: record(agent).attempt == 2, deadline=5)
        assert [e.network for e in (await phase(agent, 1, Phase.RUNNING)).endpoints] == [TWO]


async def test_a_stopped_container_comes_up_on_the_networks_it_was_given_meanwhile(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    box = instance()
    async with lab.agent() as agent:
        await agent.take_view(view(box))
        await phase(agent, 1, Phase.RUNNING)
        await agent.take_view(view(wish(box, desired=Desired.STOPPED), revision=2))
        await phase(agent, 1, Phase.EXITED)
        await agent.take_view(view(on(box, ONE, desired=Desired.STOPPED), revision=3))
        await agent.take_view(view(on(box, ONE, attempt=2), revision=4))
        assert [e.network for e in (await phase(agent, 1, Phase.RUNNING)).endpoints] == [ONE]


async def test_what_a_host_finds_impossible_is_tried_ever_more_rarely_until_the_wish_is_another(
    tmp_path: Path,
) -> None:
    lab = AgentLab(tmp_path)
    wanted, other = (ResolvedAttachment(network=ONE, ipv4=f"10.21.0.{n}") for n in (2, 3))
    holder, box = on(instance(2), ResolvedAttachment(network=ONE, ipv4="10.21.0.2")), instance()
    async with lab.agent() as agent:
        await agent.take_view(view(holder, box))
        await phase(agent, 1, Phase.RUNNING)
        await phase(agent, 2, Phase.RUNNING)
        await agent.take_view(view(holder, on(box, BRIDGE, wanted, revision=2), revision=2))
        for seconds in (5, 10, 20, 40, 60, 60):
            words = f"tried again in {seconds} s"
            await until(lambda words=words: words in record(agent).message, deadline=5)  # type: ignore[misc]
            agent.workers[ident(1)].look_again()
        await agent.take_view(view(holder, on(box, BRIDGE, wanted, revision=3), revision=3))
        await until(lambda: "tried again in 5 s" in record(agent).message, deadline=5)
        await agent.take_view(view(holder, on(box, BRIDGE, other, revision=4), revision=4))
        await stands(agent, BRIDGE, ONE)
        assert not record(agent).message


async def test_network_that_comes_late_is_joined_at_once(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.take_view(view(instance()))
        await phase(agent, 1, Phase.RUNNING)
        early = view(on(instance(), BRIDGE, ONE, revision=2), revision=2)
        late = replace(early, networks={BRIDGE: NETWORKS[BRIDGE]})
        await agent.take_view(late)
        await until(lambda: "not on this host yet" in record(agent).message, deadline=5)
        await agent.take_view(replace(early, revision=3))
        await until(lambda: len(record(agent).endpoints) == 2, deadline=2)


async def test_ports_change_under_a_running_container_and_chosen_ones_stay(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    box = instance(ports=(Publish(target=80),))

    def ports(*wanted: Publish) -> Instance:
        return replace(box, spec=replace(box.spec, ports=wanted))

    async with lab.agent() as agent:
        await agent.take_view(view(box))
        [chosen] = (await phase(agent, 1, Phase.RUNNING)).ports
        both = (Publish(target=81, published=8081), Publish(target=80))
        await agent.take_view(view(ports(*both), revision=2))
        await until(lambda: len(record(agent).ports) == 2 and not record(agent).rewiring, deadline=5)
        assert chosen in record(agent).ports and lab.network.published[ident(1)] == record(agent).ports
        lab.network.foreign_ports.add(("tcp", 9000))
        await agent.take_view(view(ports(*both, Publish(target=82, published=9000)), revision=3))
        await until(lambda: "9000" in record(agent).message, deadline=5)
        assert len(lab.network.published[ident(1)]) == 2
        await agent.take_view(view(ports(), revision=4))
        await until(lambda: not record(agent).ports and not record(agent).rewiring, deadline=5)
        assert ident(1) not in lab.network.published


async def test_a_port_out_of_a_range_is_the_first_that_is_free(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    lab.network.foreign_ports.add(("tcp", 8000))
    wanted = Publish(target=80, published=8000, published_to=8001)
    async with lab.agent() as agent:
        await agent.take_view(view(instance(ports=(wanted,)), instance(2, ports=(wanted,))))
        seen = [await phase(agent, n, Phase.RUNNING, Phase.FAILED) for n in (1, 2)]
        assert sorted(s.phase for s in seen) == [Phase.FAILED, Phase.RUNNING]
        [port] = next(s.ports for s in seen if s.phase is Phase.RUNNING)
        assert port.published == 8001


@pytest.mark.parametrize("reverted", [False, True])
@pytest.mark.parametrize("side", ["before", "after"])
async def test_a_change_cut_short_at_any_step_comes_to_the_same_end(
    tmp_path: Path, side: Side, reverted: bool
) -> None:
    """Whether the wish is still the same when the next agent comes, or was taken back meanwhile."""
    box = instance(ports=(Publish(target=80),))
    changed = on(box, ONE, TWO)

    async def scenario(lab: AgentLab) -> None:
        async with lab.agent() as agent:
            await agent.take_view(view(changed, revision=2))
            await stands(agent, ONE, TWO)

    for at in range(MOST):
        lab = AgentLab(tmp_path / f"{at}")
        async with lab.agent() as agent:
            await agent.take_view(view(box))
            before = await phase(agent, 1, Phase.RUNNING)
        wire = Tripwire(at=at, side=side)
        lab.trip(wire)
        await until_crash(wire, scenario(lab), deadline=20)
        lab.trip(None)
        wanted = box if reverted else changed
        networks = [a.network for a in wanted.attachments]
        async with lab.agent() as agent:
            await agent.take_view(view(wanted, revision=3))
            endpoints = await stands(agent, *networks)
            assert sorted(lab.network.endpoints) == [(ident(1), n) for n in sorted(networks)]
            held = {(e.network, e.ipv4): ident(1) for e in endpoints}
            assert agent.context.addresses.held() == held, (at, side, wire.steps[-1])
            text = (lab.folder / "state/containers" / ident(1) / "hosts").read_text()
            named = [line for line in text.splitlines() if line.endswith(f"\t{ident(1)[:12]}")]
            assert named == [f"{e.ipv4}\t{ident(1)[:12]}" for e in endpoints], (at, side, wire.steps[-1])
            after = await phase(agent, 1, Phase.RUNNING)
            assert (after.pid, after.ports) == (before.pid, before.ports)
            await agent.take_view(view(on(wanted, desired=Desired.REMOVED, force=True), revision=4))
            await gone(agent, 1)
        assert lab.leaks() == {}, (at, side, wire.steps[-1])
        if len(wire.steps) <= at:
            break
    else:
        raise AssertionError("the scenario has more steps than were tried")


async def test_an_address_that_changes_while_networks_are_changed_is_not_missed(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    box, leases = instance(ports=(Publish(target=80),)), ["10.21.0.50", "10.21.0.51"]
    async with lab.agent() as agent:
        await agent.take_view(view(box))
        await phase(agent, 1, Phase.RUNNING)
        attach, publish = lab.network.attach, lab.network.publish

        async def leased(request: Any) -> Endpoint:
            made: Endpoint = await attach(request)
            return replace(made, ipv4=leases[0]) if made.network == ONE else made

        async def published(request: Any) -> None:
            await publish(request)
            if len(leases) > 1:  # the endpoint stands, and its step is still under way
                leases.pop(0)
                lab.network.ring_lease(ident(1))

        lab.network.attach, lab.network.publish = leased, published
        await agent.take_view(view(on(box, BRIDGE, ONE), revision=2))
        await until(lambda: [e.ipv4 for e in record(agent).endpoints][1:] == ["10.21.0.51"], deadline=5)
        await stands(agent, BRIDGE, ONE)
