"""What an agent that was taken over can say, and what comes of it for others: nothing."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from aio.eventring import MOST_SAID
from model.api import CreateInstance
from model.events import Event
from model.factrules import MOST_ENTRIES, MOST_WORDS
from model.ids import InstanceId, NetworkId
from model.netoptions import canonical
from model.spec import Attachment, ContainerSpec, NetworkSpec, ServiceSpec, Subnet
from model.status import HostFacts, HostReport, InstanceStatus
from model.tunnels import TunnelEnd, TunnelReport
from model.wire import Report
from tests.support.agents import FakeHost, make_host
from tests.support.fleet import Fleet, fleet
from tests.support.waiting import until

SCRIPT = "198.18.9.9 }\nadd rule inet flota forward accept\nadd table inet evil\n#"
BACK = NetworkSpec(name="back", subnets=(Subnet(cidr="10.50.0.0/16"),))
EVIL, GOOD = make_host(1), make_host(2)
BAD: tuple[dict[str, Any], ...] = (
    {"address": SCRIPT},
    {"address": "0.0.0.0/0"},
    {"addresses": ("192.0.2.1", SCRIPT)},
    {"links": ("oops",)},
    {"routes": ("0.0.0.0/0",)},
    {"mtu": 0},
    {"link_local": SCRIPT},
)


async def run(f: Fleet, name: str, host: str) -> InstanceId:
    spec = ContainerSpec(image="busybox", networks=(Attachment(network="back"),))
    await f.controller.create_instance(CreateInstance(spec=spec, name=name, host=host, start=True))
    await f.controller.wait_instance(name, "running")
    return f.controller.get_instance(name).instance.id


def conditions(f: Fleet) -> tuple[str, ...]:
    return f.controller.get_host("host1").conditions


def facts_of(f: Fleet) -> HostFacts:
    return f.controller.snapshot().hosts[EVIL.id].facts


@pytest.mark.parametrize("words", BAD)
async def test_hello_with_bad_facts_ends_the_session_and_changes_nothing(words: dict[str, Any]) -> None:
    async with fleet(make_host(1), make_host(2), connect=False) as f:
        known, revision = facts_of(f), f.controller.snapshot().revision
        f.hosts[EVIL.id].facts = replace(known, **words)
        agent = await f.connect(EVIL.id)
        await until(lambda: agent.goodbye is not None, deadline=5)
        assert agent.goodbye is not None and agent.goodbye.retry
        assert f"this host says of itself what cannot be: {next(iter(words))}" in agent.goodbye.reason
        assert "\n" not in agent.goodbye.reason
        assert facts_of(f) == known and f.controller.snapshot().revision == revision
        other = await f.connect(GOOD.id)
        await until(other.welcomed.is_set, deadline=5)
        await f.controller.create_network(BACK)


@pytest.mark.parametrize("words", BAD)
async def test_report_with_bad_facts_ends_the_session_and_changes_nothing(words: dict[str, Any]) -> None:
    async with fleet(make_host(1), make_host(2)) as f:
        known, agent = facts_of(f), f.agents[EVIL.id]
        agent.host.sequence += 1
        await agent.send(Report(sequence=agent.host.sequence, facts=replace(known, **words)))
        await until(lambda: agent.goodbye is not None, deadline=5)
        assert agent.goodbye is not None
        assert f"this host reports what cannot be: {next(iter(words))}" in agent.goodbye.reason
        assert facts_of(f) == known
        await f.controller.create_network(BACK)


@pytest.mark.parametrize("address", ["0.0.0.0/0", "oops", "10.50.1.9", "8.8.8.8"])
async def test_address_that_is_not_the_hosts_reaches_no_other_host(address: str) -> None:
    async with fleet(make_host(1), make_host(2)) as f:
        await f.controller.create_network(BACK)
        evil, good = await run(f, "evil", "host1"), await run(f, "good", "host2")
        network = f.controller.get_network("back").network.id
        there = f.agents[GOOD.id]

        def told() -> dict[InstanceId, str]:
            members = there.directory.networks.get(network, {}) if there.directory is not None else {}
            return {ident: member.ipv4 for ident, member in members.items()}

        await until(lambda: all(told().get(i) for i in (evil, good)), deadline=5)
        await f.agents[EVIL.id].report([_with(f.hosts[EVIL.id].statuses[evil], address)])
        await until(lambda: told()[evil] == "", deadline=5)
        assert told()[good]
        (words,) = conditions(f)
        assert "reports for evil is left out" in words and address in words
        await f.agents[EVIL.id].report([f.hosts[EVIL.id].statuses[evil]])
        await until(lambda: told()[evil] != "", deadline=5)
        assert not conditions(f)


def _with(status: InstanceStatus, address: str) -> InstanceStatus:
    return replace(status, endpoints=tuple(replace(e, ipv4=address) for e in status.endpoints))


async def test_tunnel_ends_that_cannot_be_the_hosts_reach_no_other_host() -> None:
    secret = replace(BACK, options=canonical({"encrypted": ""}))
    one, two = "A" * 43 + "=", "B" * 42 + "A="
    async with fleet(make_host(1, wireguard="kernel"), make_host(2, wireguard="kernel")) as f:
        await f.controller.create_network(secret)
        await run(f, "evil", "host1")
        await run(f, "good", "host2")
        network = f.controller.get_network("back").network.id

        async def tell(host: FakeHost, *ends: TunnelEnd, **more: Any) -> None:
            tunnels = {network: TunnelReport(ends=ends)}
            f.hosts[host.id].report = HostReport(host=host.id, tunnels=tunnels, **more)
            await f.agents[host.id].tell_host()

        def seen() -> list[str]:
            peers = f.agents[EVIL.id].view.networks[network].peers
            return [end.key for peer in peers for end in peer.ends]

        await tell(GOOD, TunnelEnd(generation=1, key=one, port=51820))
        await until(lambda: seen() == [one], deadline=5)
        for bad in (
            TunnelEnd(generation=1, key=one, port=51820),
            TunnelEnd(generation=1, key="oops", port=51820),
            TunnelEnd(generation=1, key=two, port=1 << 16),
            TunnelEnd(generation=9, key=two, port=51820),
        ):
            await tell(EVIL, bad)
            after = f"after {bad}"
            await tell(EVIL, bad, conditions=(after,))
            await until(lambda after=after: after in conditions(f), deadline=5)
            assert f.controller.snapshot().hosts[EVIL.id].tunnels == {network: ()}


async def test_words_that_name_no_network_are_passed_over() -> None:
    async with fleet(make_host(1)) as f:
        nobody = NetworkId("oops")
        report = HostReport(host=EVIL.id, short=(nobody,), vacated=("oops/x/y", "", "///"))
        f.hosts[EVIL.id].report = replace(report, tunnels={nobody: TunnelReport()})
        await f.agents[EVIL.id].tell_host()
        await f.controller.create_network(BACK)
        await run(f, "good", "host1")


async def test_words_without_end_are_cut_before_records_are_made_of_them() -> None:
    async with fleet(make_host(1)) as f:
        f.hosts[EVIL.id].fails["bad"] = "x" * (1 << 20)
        await f.controller.create_service(ServiceSpec(name="web", container=ContainerSpec(image="bad")))

        def reasons() -> list[str]:
            return [i.reason for i in f.controller.snapshot().instances.values() if "xxx" in i.reason]

        await until(lambda: bool(reasons()), deadline=5)
        assert all(MOST_WORDS <= len(reason) < MOST_WORDS + 100 for reason in reasons())


async def test_conditions_without_end_are_cut_in_number_and_length() -> None:
    async with fleet(make_host(1)) as f:
        many = ("x" * (1 << 20), *(f"word {n}" for n in range(2 * MOST_ENTRIES)))
        f.hosts[EVIL.id].report = HostReport(host=EVIL.id, conditions=many)
        await f.agents[EVIL.id].tell_host()
        await until(lambda: len(conditions(f)) > 1, deadline=5)
        found = conditions(f)
        assert len(found) == MOST_ENTRIES and max(map(len, found)) == MOST_WORDS


async def test_event_without_end_is_kept_only_as_far_as_people_read() -> None:
    async with fleet(make_host(1)) as f:
        labels = {f"label{n}": "y" * 100 for n in range(10_000)}
        event = Event(type="container", action="x" * (1 << 20), id="evil", attributes=labels)
        f.agents[EVIL.id].host.sequence += 1
        await f.agents[EVIL.id].send(Report(sequence=f.agents[EVIL.id].host.sequence, events=(event,)))
        await until(lambda: bool(f.controller.ring.about("evil")), deadline=5)
        [kept] = f.controller.ring.about("evil")
        assert kept.action == "x" * MOST_WORDS and kept.host == "host1"
        assert 0 < len(str(kept.attributes)) < 2 * MOST_SAID
        assert set(kept.attributes.items()) < set(labels.items())
