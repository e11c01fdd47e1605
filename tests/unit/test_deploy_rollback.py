"""The way back of an upgrade, cut or whole, as decisions and over fake hosts."""

from __future__ import annotations

import contextlib

import pytest
from msgspec.structs import replace

from deploy.releases import Aim
from deploy.upgrade import FleetNow
from deploy.upgradeplan import Wanted, upgrade
from model.errors import FlotaError, WrongState
from tests.support.fakefleethosts import NEW, OLD, Place
from tests.unit.test_deploy_upgrade import FLEET, HOSTS, INSTALLED, run, runs


async def test_rollback_goes_back_and_forwards_again() -> None:
    place = Place()
    await run(place)
    done = await run(place, back=True)
    assert not [one.error for one in done.moved if one.error]
    assert runs(place) == dict.fromkeys(("h1", "h2", "h3"), OLD) and place.machines["h1"].control == OLD
    await run(place)
    assert place.machines["h3"].agent == NEW


@pytest.mark.parametrize("cut", range(14))
async def test_rollback_that_is_cut_anywhere_goes_on_backwards(cut: int) -> None:
    place = Place()
    await run(place)
    place.cut_after = cut
    with contextlib.suppress(FlotaError):
        await run(place, back=True)
    place.cut_after = -1
    with contextlib.suppress(WrongState):  # all that was left is its end
        done = await run(place, back=True)
        assert not [one.error for one in done.moved if one.error]
    assert runs(place) == dict.fromkeys(("h1", "h2", "h3"), OLD) and place.machines["h1"].control == OLD


async def test_rollback_that_was_cut_with_the_controller_stopped_starts_the_one_before() -> None:
    place = Place()
    await run(place)
    place.cut_at("h1", "controller", OLD)
    await run(place, back=True)
    assert place.machines["h1"].control == ""
    place.mend()
    place.acts.clear()
    done = await run(place, back=True)
    assert [str(one.move.daemon) for one in done.moved] == ["controller"]
    assert place.moves() == [("h1", "controller", OLD)] and place.machines["h1"].control == OLD
    assert place.machines["h1"].aim is None


async def test_rollback_after_an_upgrade_that_was_cut_goes_to_what_ran_before_it() -> None:
    place = Place()
    place.cut_after = 9  # the release is on all hosts, and none was changed yet
    assert (await run(place)).moved[-1].error
    place.cut_after = -1
    assert place.machines["h1"].aim and place.machines["h1"].control == OLD
    assert (await run(place, back=True)).moved == (), "not to the release before that"


async def test_rollback_after_an_upgrade_that_was_cut_with_the_controller_stopped_starts_it_again() -> None:
    place = Place()
    place.cut_at("h1", "controller", NEW)
    await run(place)
    assert place.machines["h1"].control == "" and place.machines["h1"].pin("controller")[0] == NEW
    place.mend()
    place.acts.clear()
    done = await run(place, back=True)
    assert [(one.move.daemon, one.error) for one in done.moved] == [("controller", "")]
    assert place.moves() == [("h1", "controller", OLD)], "no agent goes to the release before that"
    assert runs(place) == dict.fromkeys(("h1", "h2", "h3"), OLD) and place.machines["h1"].control == OLD


async def test_upgrade_after_a_rollback_that_was_cut_says_so() -> None:
    aim = Aim(release=OLD, back=True)
    hosts = [replace(h, installed=replace(INSTALLED, aim=aim)) for h in HOSTS]
    notes = [str(one) for one in upgrade(hosts, FLEET, Wanted(release=NEW)).findings]
    assert any("a rollback of h1 was cut; this one goes forwards, to 2-new" in one for one in notes)


async def test_controller_that_took_commands_is_not_put_back_under_them() -> None:
    place = Place()
    head = place.machines["h1"]

    def seen(now: FleetNow) -> FleetNow:
        if now.controller == NEW:
            head.taken = True
            return replace(now, nodes={})
        return now

    place.seen = seen
    place.does_not_start.add(("controller", OLD))
    done = await run(place)
    assert "2-new has taken commands, and 1-old can't read what they stored" in done.moved[-1].error
    assert not done.moved[-1].back and head.control == NEW and head.pin("controller")[0] == NEW


async def test_rollback_of_a_controller_that_can_not_read_the_store_any_more_leaves_the_new_one() -> None:
    place = Place()
    await run(place)
    place.does_not_start.add(("controller", OLD))
    failed = (await run(place, back=True)).moved[-1]
    assert failed.back and "did not start: no such thing. It is back on 2-new; hosts" in failed.error
    assert runs(place) == dict.fromkeys(("h1", "h2", "h3"), OLD) and place.machines["h1"].control == NEW


async def test_rollback_after_an_upgrade_that_was_cut_keeps_what_was_stored_since() -> None:
    place = Place()
    await run(place)
    head = place.machines["h1"]
    head.copy, head.store = (NEW, "of old"), "weeks of new"
    place.does_not_start.add(("controller", OLD))
    failed = (await run(place, back=True)).moved[-1]
    assert failed.back and "as it was before" not in failed.error
    assert head.copy == (NEW, "of old") and head.store != "of old"


async def test_copy_of_a_run_that_was_cut_is_of_no_use_once_the_controller_is_there() -> None:
    place = Place()
    await run(place)
    place.machines["h1"].copy = (NEW, "of old")
    assert (await run(place)).plan.settled and place.machines["h1"].copy is None


async def test_copy_of_a_run_that_was_cut_is_made_anew_once_the_old_controller_ran_again() -> None:
    place = Place()
    head = place.machines["h1"]
    copies: list[tuple[str, str] | None] = []
    head.copy, head.store = (NEW, "of old"), "weeks since"  # it went back, and that run was cut, too

    def before(words: tuple[str, ...]) -> None:
        if words == ("h1", "put-back"):
            copies.append(head.copy)

    place.before_act = before
    place.does_not_start.add(("controller", NEW))
    assert (await run(place)).moved[-1].back
    assert copies == [(NEW, "weeks since")]


async def test_rollback_that_is_not_possible_changes_nothing() -> None:
    place = Place()
    place.machines["h2"].previous = ""
    with pytest.raises(WrongState, match="h2 has no release before"):
        await run(place, back=True)
    assert place.acts == []
