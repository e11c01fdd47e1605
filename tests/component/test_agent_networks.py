"""Networks and ports of containers that live, changed under them; over fakes, and cut short at any step."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from agent import endpoints
from agent.host import HostAgent
from agent.record import Local
from model.ids import NetworkId, ServiceId
from model.records import Desired, Instance, ResolvedAttachment
from model.spec import Attachment, NetworkSpec, Publish, Subnet
from model.status import Endpoint, Phase
from model.view import NetworkView, View
from net.ipam import Leases
from tests.support.agentlab import BRIDGE, AgentLab, bridge, gone, ident, instance, phase, wish
from tests.support.tripwire import Side, Tripwire, until_crash
from tests.support.waiting import until

ONE, TWO = NetworkId("1" * 64), NetworkId("2" * 64)
MOST = 60


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


async def test_an_address_that_is_taken_is_told_and_tried_again_and_given_up_on(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    wanted = ResolvedAttachment(network=ONE, ipv4="10.21.0.2")
    holder, box = on(instance(2), ONE), instance()
    async with lab.agent() as agent:
        await agent.take_view(view(holder, box))
        await phase(agent, 1, Phase.RUNNING)
        await phase(agent, 2, Phase.RUNNING)
        await agent.take_view(view(holder, on(box, BRIDGE, wanted), revision=2))
        await until(lambda: "10.21.0.2" in record(agent).message, deadline=5)
        assert (await phase(agent, 1, Phase.RUNNING)).endpoints[0].network == BRIDGE
        await agent.take_view(view(holder, box, revision=3))
        await stands(agent, BRIDGE)
        assert not record(agent).message
        assert [n for i, n in lab.network.endpoints if i == ident(1)] == [BRIDGE]


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


async def test_container_whose_address_is_not_given_up_elsewhere_yet_waits_for_it(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    wanted = ResolvedAttachment(network=ONE, ipv4="10.21.0.9")
    box, spread = on(instance(1), wanted), network(ONE, "one", "10.21.0.0/24")
    waiting = replace(spread, blocks=("10.21.0.16/28",), awaited=("10.21.0.9",))
    granted = replace(spread, blocks=("10.21.0.16/28",), singles=("10.21.0.9/32",))
    async with lab.agent() as agent:
        await agent.take_view(replace(view(box), networks={ONE: waiting}))
        await phase(agent, 1, Phase.PREPARING)
        await agent.take_view(replace(view(box, revision=2), networks={ONE: granted}))
        assert (await phase(agent, 1, Phase.RUNNING)).endpoints[0].ipv4 == "10.21.0.9"


async def test_address_that_is_set_aside_is_given_to_nobody_and_told_once_it_is_free(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    one, two = on(instance(1), ONE), on(instance(2), ONE)
    tight = replace(network(ONE, "one", "10.21.0.0/24"), blocks=("10.21.0.8/31",))
    aside = replace(tight, set_aside={"10.21.0.8": "7"})
    async with lab.agent() as agent:
        await agent.take_view(replace(view(one), networks={ONE: tight}))
        assert (await phase(agent, 1, Phase.RUNNING)).endpoints[0].ipv4 == "10.21.0.8"
        await agent.take_view(replace(view(one, two, revision=2), networks={ONE: aside}))
        assert (await phase(agent, 2, Phase.RUNNING)).endpoints[0].ipv4 == "10.21.0.9"
        assert agent.host_report().vacated == ()
        over = on(instance(1), ONE, desired=Desired.REMOVED, force=True)
        await agent.take_view(replace(view(over, two, revision=3), networks={ONE: aside}))
        await gone(agent, 1)
        report = (await asyncio.wait_for(agent.reporter.next(), 5)).report
        assert report is not None and report.vacated == (f"{ONE}/10.21.0.8/7",)


async def test_container_without_a_free_address_waits_for_another_block_and_says_so(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    one, two = instance(1), instance(2)
    tight = network(ONE, "one", "10.21.0.0/24")
    full = replace(tight, blocks=("10.21.0.8/32",))
    first, second = on(one, ONE), on(two, ONE)

    def seen(found: NetworkView, *instances: Instance, revision: int) -> View:
        return replace(view(*instances, revision=revision), networks={ONE: found})

    async with lab.agent() as agent:
        await agent.take_view(seen(full, first, revision=1))
        assert (await phase(agent, 1, Phase.RUNNING)).endpoints[0].ipv4 == "10.21.0.8"
        await agent.take_view(seen(full, first, second, revision=2))
        await until(lambda: agent.host_report().short == (ONE,), deadline=5)
        more = replace(tight, blocks=("10.21.0.8/32", "10.21.0.9/32"))
        await agent.take_view(seen(more, first, second, revision=3))
        assert (await phase(agent, 2, Phase.RUNNING)).endpoints[0].ipv4 == "10.21.0.9"
        assert agent.host_report().short == ()


async def test_replica_without_a_free_address_waits_for_as_long_as_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain container fails, for somebody waits for it; both without a word of a timer's."""
    monkeypatch.setattr(endpoints, "GROW_WITHIN", 0.05)
    lab = AgentLab(tmp_path)
    full = replace(network(ONE, "one", "10.21.0.0/24"), blocks=("10.21.0.8/32",))
    first, plain = on(instance(1), ONE), on(instance(2), ONE)
    replica = on(instance(3), ONE, service=ServiceId("5" * 64), service_name="web", slot=1)

    def seen(*instances: Instance, revision: int) -> View:
        return replace(view(*instances, revision=revision), networks={ONE: full})

    async with lab.agent() as agent:
        await agent.take_view(seen(first, revision=1))
        await phase(agent, 1, Phase.RUNNING)
        await agent.take_view(seen(first, plain, replica, revision=2))
        assert "no free IPv4 address" in (await phase(agent, 2, Phase.FAILED)).message
        assert record(agent, 3).phase is Phase.PREPARING and agent.host_report().short == (ONE,)
        book = agent.context.addresses
        over = on(instance(1), ONE, desired=Desired.REMOVED, force=True)
        await agent.take_view(seen(over, plain, replica, revision=3))
        await gone(agent, 1)
        assert record(agent, 3).phase is Phase.PREPARING, "what was given back rests"
        book._set(ONE, Leases(resting={"10.21.0.8": agent.context.clock.now() + 0.05}))
        assert (await phase(agent, 3, Phase.RUNNING)).endpoints[0].ipv4 == "10.21.0.8"
        assert agent.host_report().short == ()


async def test_replica_that_waits_for_an_address_can_be_removed(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    full = replace(network(ONE, "one", "10.21.0.0/24"), blocks=("10.21.0.1/32",))
    replica = on(instance(3), ONE, service=ServiceId("5" * 64), service_name="web", slot=1)
    async with lab.agent() as agent:
        await agent.take_view(replace(view(replica), networks={ONE: full}))
        await until(lambda: agent.host_report().short == (ONE,), deadline=5)
        over = on(instance(3), ONE, desired=Desired.REMOVED, force=True)
        await agent.take_view(replace(view(over, revision=2), networks={ONE: full}))
        await gone(agent, 3)
        assert agent.host_report().short == ()
    assert lab.leaks() == {}


async def test_replica_on_a_full_network_of_its_host_waits_a_second_for_an_address(tmp_path: Path) -> None:
    """Nothing fails meanwhile, so no pause before another try is earned."""
    lab = AgentLab(tmp_path)
    full = replace(network(ONE, "one", "10.21.0.0/24"), blocks=("10.21.0.8/32",))
    first = on(instance(1), ONE)
    replica = on(instance(3), ONE, service=ServiceId("5" * 64), service_name="web", slot=1)

    def seen(*instances: Instance, revision: int) -> View:
        return replace(view(*instances, revision=revision), networks={ONE: full})

    async with lab.agent() as agent:
        await agent.take_view(seen(first, revision=1))
        await phase(agent, 1, Phase.RUNNING)
        over = on(instance(1), ONE, desired=Desired.REMOVED, force=True)
        await agent.take_view(seen(over, replica, revision=2))
        assert (await phase(agent, 3, Phase.RUNNING, deadline=5)).endpoints[0].ipv4 == "10.21.0.8"
        assert not any("failed" in line for line in agent.workers[ident(3)].story)


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
