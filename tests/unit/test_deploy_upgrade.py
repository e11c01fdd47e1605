"""Which daemon is moved when, and what is done where one does not come back."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from deploy.releases import Installed
from deploy.upgrade import FleetNow, Run, Upgrader
from deploy.upgradeplan import Fleet, HostNow, Wanted, rollback, upgrade, way_back
from model.errors import FlotaError, Unavailable, WrongState
from tests.support.fakefleethosts import NEW, OLD, OLDER, FakeBundles, Place

INSTALLED = Installed(current=OLD, previous=OLDER, protocols={OLDER: 3, OLD: 4, NEW: 5})


def host(name: str, *, controller: bool = False, **more: object) -> HostNow:
    base = HostNow(host=name, name=name, state="ready", controller=controller, installed=INSTALLED, agent=OLD)
    return replace(base, **more)


HOSTS = (host("h2"), host("h1", controller=True), host("h3"))
FLEET = Fleet(controller=OLD, agents=dict.fromkeys(("h1", "h2", "h3"), OLD))
MOVED = Installed(current=NEW, previous=OLD)


def order(plan: object) -> list[tuple[str, str, str, str]]:
    return [(m.name, m.daemon, m.before, m.after) for m in plan.moves]  # type: ignore[attr-defined]


def test_upgrade_moves_the_controller_first_and_then_agents_by_name() -> None:
    assert order(upgrade(HOSTS, FLEET, Wanted(release=NEW))) == [
        ("h1", "controller", OLD, NEW),
        ("h1", "agent", OLD, NEW),
        ("h2", "agent", OLD, NEW),
        ("h3", "agent", OLD, NEW),
    ]


def test_upgrade_of_what_is_there_already_is_nothing() -> None:
    hosts = [replace(h, installed=MOVED, agent=NEW) for h in HOSTS]
    plan = upgrade(hosts, Fleet(controller=NEW), Wanted(release=NEW))
    assert plan.moves == () and plan.settled == ("h1", "h2", "h3")


def test_upgrade_that_was_cut_after_the_switch_goes_on_and_knows_the_way_back() -> None:
    hosts = (replace(HOSTS[1], installed=MOVED), host("h2", installed=MOVED, agent=NEW, state="lost"))
    plan = upgrade(hosts, FLEET, Wanted(release=NEW))
    assert order(plan) == [
        ("h1", "controller", OLD, NEW),
        ("h1", "agent", OLD, NEW),
        ("h2", "agent", OLD, NEW),
    ]
    assert plan.moves[-1].why == "it is lost"
    assert way_back(hosts[0], "controller", NEW, "") == OLD


def test_upgrade_of_agents_alone_waits_for_the_controller() -> None:
    plan = upgrade((host("h2"),), FLEET, Wanted(release=NEW))
    assert plan.moves == () and "the controller would be older" in plan.fatal[0].what
    assert upgrade((host("h2"),), Fleet(controller=NEW), Wanted(release=NEW)).moves


def test_upgrade_over_too_many_releases_is_refused() -> None:
    plan = upgrade(HOSTS, FLEET, Wanted(release=NEW, oldest=5))
    assert plan.moves == () and "h2's agent speaks protocol 4, 2-new 5 or newer" in plan.fatal[0].what


def test_host_that_has_no_release_is_not_ours_to_upgrade() -> None:
    plan = upgrade((HOSTS[1], host("h4", installed=Installed())), FLEET, Wanted(release=NEW))
    assert plan.moves == () and "h4 was not made by `flota host add`" in plan.fatal[0].what


def test_rollback_moves_the_controller_last() -> None:
    hosts = [replace(h, installed=MOVED, agent=NEW) for h in HOSTS]
    fleet = Fleet(controller=NEW, agents=dict.fromkeys(("h1", "h2", "h3"), NEW))
    assert order(rollback(hosts, fleet)) == [
        ("h2", "agent", NEW, OLD),
        ("h3", "agent", NEW, OLD),
        ("h1", "agent", NEW, OLD),
        ("h1", "controller", NEW, OLD),
    ]


def test_rollback_of_the_controller_alone_is_refused_while_newer_agents_stay() -> None:
    fleet = Fleet(controller=NEW, agents=dict.fromkeys(("h1", "h2", "h3"), NEW))
    plan = rollback((replace(HOSTS[1], installed=MOVED, agent=NEW),), fleet)
    assert plan.moves == () and "older than the agents of h2, h3" in plan.fatal[0].what
    assert rollback((replace(HOSTS[0], installed=MOVED, agent=NEW),), fleet).moves


def test_rollback_without_a_release_before_is_refused() -> None:
    plan = rollback((host("h2", installed=Installed(current=OLD)),), FLEET)
    assert plan.moves == () and "h2 has no release before 1-old" in plan.fatal[0].what


def test_rollback_leaves_hosts_that_are_back_already_where_they_are() -> None:
    gone_back = Installed(current=OLD, previous=NEW, protocols=INSTALLED.protocols)
    hosts = [
        host("h1", controller=True, installed=gone_back),  # its agent is back, its controller is not
        host("h2", installed=gone_back),  # by a run that was cut, or an upgrade that failed there
        host("h3"),  # that upgrade never came to it
        host("h4", installed=Installed(current=OLD)),
        host("h5", installed=MOVED, agent=NEW),
    ]
    fleet = Fleet(controller=NEW, agents={h.name: h.agent for h in hosts})
    assert order(rollback(hosts, fleet)) == [("h5", "agent", NEW, OLD), ("h1", "controller", NEW, OLD)]
    assert rollback(hosts[1:2], fleet).settled == ("h2",)
    back = rollback(hosts[:2], Fleet(controller=OLD, agents={"h1": OLD, "h2": OLD}))
    assert back.moves == () and "2-new, which the fleet ran before, is newer" in back.fatal[0].what


# -- the engine ------------------------------------------------------------------------------------


async def run(place: Place, *names: str, parallel: int = 1, back: bool = False, dry: bool = False) -> Run:
    upgrader = Upgrader(
        place.connect,
        FakeBundles(),
        place,
        place.report,
        parallel=parallel,
        patience=0.03,
        look_every=0.01,
    )
    return await upgrader.run(place.known(*names), back=back, dry=dry)


def runs(place: Place) -> dict[str, str]:
    return {name: machine.agent for name, machine in place.machines.items()}


async def test_all_hosts_run_the_new_release_and_keep_the_one_before() -> None:
    place = Place()
    done = await run(place)
    assert not [one.error for one in done.moved if one.error]
    assert min(place.excused[name] for name in ("h1", "h2", "h3")) > 60
    assert runs(place) == dict.fromkeys(("h1", "h2", "h3"), NEW) and place.machines["h1"].control == NEW
    assert [words[:2] for words in place.moves()] == [
        ("h1", "controller"),
        ("h1", "agent"),
        ("h2", "agent"),
        ("h3", "agent"),
    ]
    assert all(m.releases == [OLD, NEW] and m.previous == OLD for m in place.machines.values())
    assert (await run(place)).plan.settled == ("h1", "h2", "h3")


async def test_dry_run_changes_nothing() -> None:
    place = Place()
    done = await run(place, dry=True)
    assert len(done.plan.moves) == 4 and place.acts == []


async def test_host_that_can_not_be_reached_stops_all_before_anything_is_changed() -> None:
    place = Place()
    place.machines["h3"].unreachable = True
    with pytest.raises(Unavailable, match="h3: no route; nothing was changed"):
        await run(place)
    assert place.acts == []


async def test_controller_that_was_restored_elsewhere_is_not_started_again() -> None:
    place = Place()
    place.machines["h2"].controller = True  # its state is there still
    done = await run(place)
    assert not [one.error for one in done.moved if one.error]
    assert [words[0] for words in place.moves() if words[1] == "controller"] == ["h1"]
    place.machines["h2"].control = NEW
    place.acts.clear()
    with pytest.raises(WrongState, match="h1, h2 all have a controller's state"):
        await run(place)
    assert place.acts == []


@pytest.mark.parametrize("how", ["does_not_start", "never_ready"])
async def test_agent_that_does_not_come_back_goes_back_and_stops_the_rest(how: str) -> None:
    place = Place()
    getattr(place, how).add(("agent", NEW))
    done = await run(place)
    failed = done.moved[-1]
    assert failed.move.name == "h1" and failed.back
    assert "It is back on 1-old" in failed.error
    assert ("did not start: no such thing" if how == "does_not_start" else "I am lost") in failed.error
    assert runs(place) == dict.fromkeys(("h1", "h2", "h3"), OLD)
    head = place.machines["h1"]
    assert head.current == OLD and head.control == NEW
    head.reboot()
    assert (head.agent, head.control) == (OLD, NEW), "neither takes the other along"
    place.does_not_start.clear()
    place.never_ready.clear()
    assert not [one.error for one in (await run(place, back=True)).moved if one.error]
    assert runs(place) == dict.fromkeys(("h1", "h2", "h3"), OLD) and place.machines["h1"].control == OLD


async def test_controller_that_does_not_start_goes_back_with_its_store() -> None:
    place = Place()
    place.does_not_start.add(("controller", NEW))
    done = await run(place)
    head = place.machines["h1"]
    assert done.moved[-1].back and "with the store as it was before" in done.moved[-1].error
    assert (head.control, head.pin("controller")[0], head.current, head.copy) == (OLD, OLD, OLD, None)
    at = place.acts.index(("h1", "put-back"))
    assert place.acts[at + 1 : at + 4] == [
        ("h1", "switch", OLD),
        ("h1", "in-place", OLD),
        ("h1", "controller", OLD),
    ]
    assert [words[1] for words in place.moves()] == ["controller", "controller"], "no agent was touched"


async def test_controller_that_answers_and_lost_hosts_goes_back_with_what_it_stored() -> None:
    place = Place()

    def lost(now: FleetNow) -> FleetNow:
        if now.controller != NEW:
            return now
        return replace(now, nodes={name: replace(node, state="unknown") for name, node in now.nodes.items()})

    place.seen = lost
    done = await run(place)
    assert done.moved[-1].back and "h1, h2, h3 did not come back to it" in done.moved[-1].error
    assert ("h1", "put-back") not in place.acts
    assert place.machines["h1"].control == OLD and place.machines["h1"].copy is None


async def test_controller_that_went_back_keeps_what_it_is_told_while_a_host_stays_away() -> None:
    place = Place()

    def dead(now: FleetNow) -> FleetNow:
        if ("h1", "controller", NEW) not in place.acts:
            return now
        return replace(now, nodes={**now.nodes, "h3": replace(now.nodes["h3"], state="lost")})

    place.seen = dead
    failed = (await run(place)).moved[-1]
    head = place.machines["h1"]
    assert not failed.back and "h3 did not come back to it" in failed.error
    assert ("h1", "put-back") not in place.acts, "it takes commands: no copy is put over them"
    assert (head.control, head.pin("controller")[0], head.copy) == (OLD, OLD, None)


async def test_controller_that_answered_and_died_goes_back_with_what_it_stored() -> None:
    place = Place()
    answers = ["once"]

    def seen(now: FleetNow) -> FleetNow:
        if now.controller == NEW:
            if not answers:
                raise Unavailable("nobody answers")
            answers.pop()
            return replace(now, nodes={})
        return now

    place.seen = seen
    done = await run(place)
    assert done.moved[-1].back and not answers
    assert ("h1", "put-back") not in place.acts and place.machines["h1"].control == OLD


async def test_way_back_that_fails_too_is_told_whole() -> None:
    place = Place()
    place.does_not_start |= {("agent", NEW), ("agent", OLD)}
    failed = (await run(place)).moved[-1]
    assert place.excused == {"h1": 0.0}, "what does not come back may be lost"
    assert not failed.back and "and going back to 1-old failed" in failed.error
    assert "On the host, see `flota agent`" in failed.error


async def test_containers_that_were_started_again_stop_the_rest() -> None:
    place = Place()
    place.restarts_containers = True
    done = await run(place)
    assert "containers were started again: h1-web" in done.moved[-1].error
    assert runs(place) == {"h1": NEW, "h2": OLD, "h3": OLD}


@pytest.mark.parametrize("cut", range(26))
async def test_run_that_is_cut_anywhere_is_continued_by_the_next(cut: int) -> None:
    place = Place()
    place.cut_after = cut
    try:
        await run(place)
    except FlotaError:
        pass
    else:
        place.cut_after = -1
    place.cut_after = -1
    done = await run(place)
    assert not [one.error for one in done.moved if one.error]
    assert runs(place) == dict.fromkeys(("h1", "h2", "h3"), NEW) and place.machines["h1"].control == NEW
    assert all(m.previous == OLD for m in place.machines.values())
    assert all(m.aim is None for m in place.machines.values())


async def test_parallel_moves_so_many_agents_and_stops_after_the_turn_that_failed() -> None:
    place = Place(5)
    done = await run(place, parallel=2)
    assert not [one.error for one in done.moved if one.error]
    assert place.moves()[0] == ("h1", "controller", NEW)
    failing = Place(5)
    failing.never_ready.add(("agent", NEW))
    done = await run(failing, parallel=2)
    assert [one.move.name for one in done.moved if one.error] == ["h1", "h2"]
    assert runs(failing) == dict.fromkeys(failing.machines, OLD)
