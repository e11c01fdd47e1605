"""Images that hosts get before what serves there is stopped: what is waited for, and what failures do."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from aio.supervisor import Supervisor
from controller.prepulling import Prepulling
from controller.reconcile.prepull import Prepull, wanted
from model.errors import Unavailable
from model.ids import HostId, ServiceId
from model.records import Desired
from model.spec import Availability, Placement
from tests.support.servicerig import WEB, Rig, host, spec
from tests.support.waiting import until

V2 = "v2@sha256:" + "2" * 64
V3 = "v3@sha256:" + "3" * 64


def changed(**policy: object) -> Rig:
    """Two ready replicas, on a host each, of a service that has just been changed to V2."""
    rig = Rig(spec(replicas=2, parallelism=0, **policy), host(1), host(2))
    rig.step()
    rig.obey("healthy")
    rig.now += 100
    rig.change(spec(V2, replicas=2, parallelism=0, **policy))
    return rig


def needed(rig: Rig) -> dict[str, Prepull]:
    found = wanted(rig.service, rig.cluster.of_service(WEB).values(), rig.cluster.hosts)
    return {pull.host: pull for pull in found}


def test_the_image_is_wanted_where_something_runs_that_is_to_be_replaced() -> None:
    rig = changed()
    assert sorted(needed(rig)) == ["h1", "h2"]
    assert {pull.image for pull in needed(rig).values()} == {V2}


def test_an_image_that_a_tag_names_is_not_got_ahead() -> None:
    rig = Rig(spec(replicas=2), host(1), host(2))
    rig.step()
    rig.obey("healthy")
    rig.change(spec("v2", replicas=2))
    assert not needed(rig)


def test_an_image_that_is_never_to_be_pulled_is_not_got_ahead() -> None:
    rig = changed()
    container = replace(rig.service.spec.container, pull="never")
    rig.put(replace(rig.service, spec=replace(rig.service.spec, container=container)))
    assert not needed(rig)


def test_an_image_is_not_got_ahead_where_the_service_will_not_run() -> None:
    """It may be none for that host, and would fail the change."""
    rig = changed()
    placement = Placement(constraints=("node.hostname!=h1",))
    rig.put(replace(rig.service, spec=replace(rig.service.spec, placement=placement)))
    assert sorted(needed(rig)) == ["h2"]
    h2 = rig.cluster.hosts[HostId("h2")]
    rig.put(replace(h2, spec=replace(h2.spec, availability=Availability.DRAIN)))
    assert not needed(rig)


def test_what_serves_stays_until_its_host_has_the_new_image() -> None:
    rig = changed()
    pulls = needed(rig)
    rig.prepulls = dict.fromkeys(pulls.values())
    assert rig.plan().empty
    rig.prepulls[pulls["h1"]] = ""
    rig.step()
    leaving = [i.host for i in rig.cluster.instances.values() if i.desired is Desired.REMOVED]
    assert leaving == ["h1"]


def test_by_start_first_a_pull_is_waited_for_by_nobody() -> None:
    rig = changed(order="start-first")
    rig.prepulls = dict.fromkeys(needed(rig).values())
    rig.step()
    assert sorted(rig.images()) == ["v1", "v1", V2, V2]


def test_an_image_that_cannot_be_had_pauses_the_update_and_stops_nothing() -> None:
    rig = changed()
    pulls = needed(rig)
    rig.prepulls = dict.fromkeys(pulls.values(), "no such image: v2")
    rig.step()
    rollout = rig.service.rollout
    assert rollout is not None and rollout.state == "paused"
    assert "host h" in rollout.message and "no such image: v2" in rollout.message
    assert rig.images() == ["v1", "v1"] and len(rig.ready()) == 2


def test_an_update_that_goes_on_whatever_fails_goes_on() -> None:
    rig = changed(failure_action="continue")
    rig.prepulls = dict.fromkeys(needed(rig).values(), "no such image: v2")
    rig.step()
    assert not rig.ready()


@pytest.mark.parametrize("outcome", ["", "no such image"])
async def test_pulls_go_on_at_once_and_their_end_is_told(outcome: str) -> None:
    rig, ended = changed(), list[ServiceId]()
    go = asyncio.Event()

    async def pull(wish: Prepull) -> str:
        await go.wait()
        return outcome

    async with Supervisor("test") as children:
        made = Prepulling(children, pull, ended.append)
        made.look(rig.cluster, WEB)
        made.look(rig.cluster, WEB)
        assert list(made.known.values()) == [None, None]
        go.set()
        await until(lambda: len(ended) == 2, deadline=5)
        assert list(made.known.values()) == [outcome] * 2
        rig.put(rig.service.__class__(id=WEB, spec=rig.service.spec))
        made.look(rig.cluster, WEB)
        assert not made.known


async def test_pulls_of_a_change_that_is_given_up_hold_up_none_of_the_way_back() -> None:
    """As many as may go on at once are of an image that does not come."""
    rig, ended = changed(), list[ServiceId]()
    stuck = asyncio.Event()

    async def pull(wish: Prepull) -> str:
        if wish.image == V2:
            stuck.set()
            await asyncio.Event().wait()
        return ""

    async with Supervisor("test") as children:
        made = Prepulling(children, pull, ended.append, at_once=1)
        made.look(rig.cluster, WEB)
        await asyncio.wait_for(stuck.wait(), 5)
        rig.change(spec(V3, replicas=2, parallelism=0))
        made.look(rig.cluster, WEB)
        assert {wish.image for wish in made.known} == {V3}
        await until(lambda: set(made.known.values()) == {""}, deadline=5)
        await until(lambda: len(children.names()) == 0, deadline=5)
        assert {wish.image for wish in made.known} == {V3}


async def test_a_host_that_does_not_answer_holds_nothing_up() -> None:
    rig, ended = changed(), list[ServiceId]()

    async def pull(wish: Prepull) -> str:
        raise Unavailable("the host does not answer")

    async with Supervisor("test") as children:
        made = Prepulling(children, pull, ended.append)
        made.look(rig.cluster, WEB)
        await until(lambda: len(ended) == 2, deadline=5)
        assert set(made.known.values()) == {""}
