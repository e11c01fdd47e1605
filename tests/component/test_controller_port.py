"""The controller through its port: containers and services on fake agents, over channels in memory."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from controller.store.base import Conflict, Txn
from controller.store.memory import MemoryStore
from model.api import CreateInstance, StopRequest, UpdateHost, UpdateService
from model.errors import AlreadyExists, Exhausted, InUse, InvalidInput, NotFound, Unavailable, WrongState
from model.records import Desired, Revision
from model.spec import (
    Attachment,
    Availability,
    ContainerSpec,
    Global,
    NetworkSpec,
    Placement,
    Publish,
    Replicated,
    Reservations,
    RestartPolicy,
    ServiceSpec,
    Subnet,
)
from model.status import Phase
from model.wire import Report
from tests.support.agents import make_host
from tests.support.fleet import Fleet, fleet
from tests.support.waiting import until

SPEC = ContainerSpec(image="busybox")
DEADLINE = 5.0


def phases(f: Fleet, service: str) -> list[Phase]:
    return [i.status.phase for i in f.controller.get_service(service).instances]


async def settled(f: Fleet, service: str, count: int) -> None:
    await until(
        lambda: f.controller.get_service(service).running == count, deadline=DEADLINE, what=f"{count} running"
    )


async def test_plain_container_lives_from_create_to_removal() -> None:
    async with fleet(make_host(1)) as f:
        made = await f.controller.create_instance(CreateInstance(spec=SPEC, name="one"))
        assert made.instance.desired is Desired.CREATED
        assert (await f.controller.wait_instance("one", "created")).phase == "created"
        await f.controller.start_instance("one")
        assert (await f.controller.wait_instance("one", "running")).phase == "running"
        await f.controller.stop_instance("one", StopRequest())
        assert (await f.controller.wait_instance("one", "stopped")).exit_code == 143
        for _ in range(2):
            held = (await f.controller.start_instance("one", hold=True)).instance
            assert (held.desired, held.attempt) == (Desired.CREATED, 2)
        await f.controller.start_instance("one")
        info = f.controller.get_instance("one")
        assert info.instance.attempt == 2
        await f.controller.wait_instance("one", "running")
        running = (await f.controller.start_instance("one", hold=True)).instance
        assert (running.desired, running.attempt) == (Desired.RUNNING, 2)
        with pytest.raises(WrongState, match="is running"):
            await f.controller.remove_instance("one", force=False, volumes=False)
        gone = asyncio.ensure_future(f.controller.wait_instance("one", "removed"))
        await asyncio.sleep(0)
        await f.controller.remove_instance("one", force=True, volumes=False)
        await asyncio.wait_for(gone, DEADLINE)
        assert f.controller.list_instances() == []


class FailingStore(MemoryStore):
    failing = False

    async def commit(self, txn: Txn) -> Revision | Conflict:
        if self.failing:
            raise Unavailable("the store can't write")
        return await super().commit(txn)


async def test_what_a_host_said_with_something_that_could_not_be_written_is_acted_on() -> None:
    """It says it again in its next session, but then it is no news."""
    store = FailingStore()
    async with fleet(make_host(1), store=store) as f:
        always = replace(SPEC, restart=RestartPolicy(condition="always"))
        await f.controller.create_service(ServiceSpec(name="web", container=always))
        await settled(f, "web", 1)
        (agent,) = f.agents.values()
        (status,) = agent.host.statuses.values()
        ended = replace(status, phase=Phase.EXITED, exit_code=1)
        facts = replace(agent.host.facts, memory=1 << 40)
        store.failing = True
        with pytest.raises(Unavailable):
            await f.controller.reported(agent.host.id, Report(sequence=99, statuses=(ended,), facts=facts))
        store.failing = False
        record = f.controller.get_instance(status.instance).instance
        assert record.desired is Desired.RUNNING
        await until(
            lambda: f.controller.get_instance(record.id).instance.desired is Desired.STOPPED,
            deadline=DEADLINE,
        )


async def test_auto_remove_container_answers_its_exit_code_and_is_gone() -> None:
    async with fleet(make_host(1)) as f:
        spec = ContainerSpec(image="busybox", auto_remove=True)
        made = await f.controller.create_instance(CreateInstance(spec=spec, start=True))
        ident = made.instance.id
        await f.controller.wait_instance(ident, "running")
        ended = asyncio.ensure_future(f.controller.wait_instance(ident, "next-exit"))
        removed = asyncio.ensure_future(f.controller.wait_instance(ident, "removed"))
        await asyncio.sleep(0)
        [agent] = f.agents.values()
        await agent.exit(ident, 7)
        assert (await asyncio.wait_for(ended, DEADLINE)).exit_code == 7
        assert (await asyncio.wait_for(removed, DEADLINE)).exit_code == 7
        assert f.controller.list_instances() == []
        for condition in ("running", "stopped", "removed"):
            late = await asyncio.wait_for(f.controller.wait_instance(ident, condition), DEADLINE)
            assert (late.phase, late.exit_code) == ("removed", 7)
        with pytest.raises(NotFound):
            await f.controller.wait_instance(made.instance.name, "running")


async def test_service_spreads_scales_and_is_removed() -> None:
    async with fleet(make_host(1), make_host(2), make_host(3)) as f:
        await f.controller.create_service(
            ServiceSpec(name="web", container=SPEC, mode=Replicated(replicas=3))
        )
        await settled(f, "web", 3)
        assert len({i.instance.host for i in f.controller.get_service("web").instances}) == 3
        await f.controller.scale_service("web", 5)
        await settled(f, "web", 5)
        await f.controller.scale_service("web", 1)
        await until(lambda: len(f.controller.get_service("web").instances) == 1, deadline=DEADLINE)
        await f.controller.remove_service("web")
        await until(lambda: not f.controller.list_services(), deadline=DEADLINE, what="service gone")
        assert not f.controller.list_instances()


async def test_global_service_runs_on_each_host_that_fits_and_follows_drain() -> None:
    async with fleet(make_host(1), make_host(2)) as f:
        await f.controller.create_service(ServiceSpec(name="agent", container=SPEC, mode=Global()))
        await settled(f, "agent", 2)
        await f.controller.update_host("host1", UpdateHost(availability=Availability.DRAIN))
        await until(
            lambda: [i.host_name for i in f.controller.get_service("agent").instances] == ["host2"],
            deadline=DEADLINE,
        )
        await f.controller.update_host("host1", UpdateHost(availability=Availability.ACTIVE))
        await settled(f, "agent", 2)


async def test_update_replaces_instances_and_never_edits_them() -> None:
    async with fleet(make_host(1), make_host(2)) as f:
        spec = ServiceSpec(name="web", container=SPEC, mode=Replicated(replicas=4))
        await f.controller.create_service(spec)
        await settled(f, "web", 4)
        before = {i.instance.id for i in f.controller.get_service("web").instances}

        newer = ServiceSpec(name="web", container=ContainerSpec(image="other"), mode=Replicated(replicas=4))
        await f.controller.update_service("web", UpdateService(spec=newer))
        await until(
            lambda: (
                [i.instance.spec.image for i in f.controller.get_service("web").instances] == ["other"] * 4
            ),
            deadline=DEADLINE,
            what="all replaced",
        )
        await settled(f, "web", 4)
        assert not before & {i.instance.id for i in f.controller.get_service("web").instances}


async def test_container_that_fits_nowhere_is_refused_with_the_reason_and_nothing_changes() -> None:
    async with fleet(make_host(1), make_host(2), make_host(3)) as f:
        await f.controller.update_host("host1", UpdateHost(availability=Availability.DRAIN))
        revision = f.controller.info().revision
        placement = Placement(reservations=Reservations(memory=9 << 30))
        with pytest.raises(Exhausted) as refusal:
            await f.controller.create_instance(CreateInstance(spec=SPEC, placement=placement))
        assert "3 hosts: 1 drained, 2 lack memory (need 9GiB, most free 8GiB)" in str(refusal.value)
        assert f.controller.info().revision == revision


async def test_service_that_fits_nowhere_says_why_and_starts_once_there_is_room() -> None:
    async with fleet(make_host(1)) as f:
        await f.controller.update_host("host1", UpdateHost(availability=Availability.PAUSE))
        await f.controller.create_service(ServiceSpec(name="web", container=SPEC))
        info = await until(lambda: f.controller.get_service("web").explanation, deadline=DEADLINE)
        assert info == ("1 instance waits for a host: 1 host: 1 paused",)
        await f.controller.update_host("host1", UpdateHost(availability=Availability.ACTIVE))
        await settled(f, "web", 1)
        assert f.controller.get_service("web").explanation == ()


async def test_host_port_is_given_once_per_host() -> None:
    async with fleet(make_host(1)) as f:
        spec = ContainerSpec(image="busybox", ports=(Publish(target=80, published=8080),))
        await f.controller.create_instance(CreateInstance(spec=spec, start=True))
        with pytest.raises(Exhausted, match="with port 8080/tcp in use"):
            await f.controller.create_instance(CreateInstance(spec=spec, start=True))


async def test_bad_input_names_every_problem_and_changes_nothing() -> None:
    async with fleet(make_host(1)) as f:
        revision = f.controller.info().revision
        spec = ServiceSpec(name="Web!", container=ContainerSpec(image=""), mode=Replicated(replicas=-1))
        with pytest.raises(InvalidInput) as refusal:
            await f.controller.create_service(spec)
        assert {p.path for p in refusal.value.problems} == {
            "spec.name",
            "spec.container.image",
            "spec.mode.replicas",
        }
        assert f.controller.info().revision == revision


async def test_two_creates_of_one_name_have_one_winner() -> None:
    async with fleet(make_host(1)) as f:
        requests = [f.controller.create_instance(CreateInstance(spec=SPEC, name="x")) for _ in range(2)]
        results = await asyncio.gather(*requests, return_exceptions=True)
        assert sum(isinstance(r, AlreadyExists) for r in results) == 1


async def test_overlay_network_gives_each_host_its_own_block_and_its_peers() -> None:
    async with fleet(make_host(1), make_host(2)) as f:
        network = await f.controller.create_network(NetworkSpec(name="blue"))

        spec = ContainerSpec(image="busybox", networks=(Attachment(network="blue"),))
        await f.controller.create_service(
            ServiceSpec(name="web", container=spec, mode=Replicated(replicas=2))
        )
        await settled(f, "web", 2)
        ident = network.network.id
        views = [agent.view.networks[ident] for agent in f.agents.values()]
        await until(
            lambda: all(len(a.view.networks[ident].peers) == 1 for a in f.agents.values()), deadline=DEADLINE
        )
        assert views[0].blocks != views[1].blocks
        assert views[0].vni == 4096
        with pytest.raises(Exception, match="in use by service web"):
            await f.controller.remove_network("blue")
        await f.controller.remove_service("web")
        await until(lambda: not f.controller.list_services(), deadline=DEADLINE)
        await f.controller.remove_network("blue")
        await until(lambda: all(ident not in a.view.networks for a in f.agents.values()), deadline=DEADLINE)


async def test_fixed_address_becomes_its_hosts_and_is_given_once() -> None:
    async with fleet(make_host(1), make_host(2)) as f:
        subnets = (Subnet(cidr="10.50.0.0/16"),)
        blue = (await f.controller.create_network(NetworkSpec(name="blue", subnets=subnets))).network.id

        async def make(address: str, host: str) -> None:
            spec = ContainerSpec(image="x", networks=(Attachment(network="blue", ipv4=address),))
            await f.controller.create_instance(CreateInstance(spec=spec, host=host, start=True))

        await make("10.50.200.7", "host1")
        [agent, other] = f.agents.values()
        await until(lambda: blue in agent.view.networks, deadline=DEADLINE)
        own = agent.view.networks[blue]
        assert list(own.fixed.values()) == ["10.50.200.7"]
        assert "10.50.200.7/32" not in own.blocks, "nobody else gets it"
        with pytest.raises(InUse, match="belongs to"):
            await make("10.50.200.7", "host2")
        with pytest.raises(InUse, match="is host1's own"):
            await make(own.blocks[0].replace("0/24", "2"), "host2")
        with pytest.raises(InvalidInput, match="in no subnet"):
            await make("10.60.0.1", "host1")
        await make("10.50.200.8", "host2")
        await until(
            lambda: (
                blue in other.view.networks
                and any("10.50.200.7/32" in peer.blocks for peer in other.view.networks[blue].peers)
            ),
            deadline=DEADLINE,
        )


async def test_stopped_container_whose_room_was_given_away_is_not_started() -> None:
    async with fleet(make_host(1)) as f:
        big = Placement(reservations=Reservations(memory=5 << 30))
        await f.controller.create_instance(CreateInstance(spec=SPEC, name="a", placement=big, start=True))
        await f.controller.wait_instance("a", "running")
        await f.controller.stop_instance("a", StopRequest())
        await f.controller.create_instance(CreateInstance(spec=SPEC, name="b", placement=big, start=True))
        with pytest.raises(Exhausted, match=r"does not fit on host1 any more: lack memory"):
            await f.controller.start_instance("a")
