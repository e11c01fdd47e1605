"""Which stages of a build go to other hosts."""

from __future__ import annotations

import random

import pytest

from image.build.spreading import ASKED, LEAST, Host, Place, Work, spread

HOME = Host(name="n1")
OTHERS = tuple(Host(name=f"n{number}") for number in (2, 3, 4))
MB = 1_000_000


def four(seconds: float = 20.0, *, moves: int = 0, gives: int = 0) -> list[Work]:
    """Independent stages, and one that copies of them all."""
    stages = [Work(stage=number, seconds=seconds, moves=moves, gives=gives) for number in range(4)]
    return [*stages, Work(stage=4, needs=(0, 1, 2, 3), seconds=0.1, stays="its result is wanted here")]


def end(plan: tuple[Place, ...]) -> float:
    return max(place.back for place in plan)


def hosts(plan: tuple[Place, ...]) -> dict[int, str]:
    return {place.stage: place.host for place in plan}


def test_four_independent_stages_on_hosts_with_room_for_one_take_little_longer_than_one() -> None:
    plan = spread(four(), HOME, OTHERS)
    assert sorted(hosts(plan)[stage] for stage in range(4)) == ["n1", "n2", "n3", "n4"]
    assert hosts(plan)[4] == "n1" and end(plan) <= 1.15 * 20
    assert "rather than 80 s" in next(place.why for place in plan if place.host != "n1")


def test_home_with_room_for_all_keeps_all() -> None:
    plan = spread(four(), Host(name="n1", room=4), OTHERS)
    assert set(hosts(plan).values()) == {"n1"}


def test_stage_whose_files_take_longer_to_move_than_to_build_stays() -> None:
    plan = spread(four(moves=8000 * MB), HOME, OTHERS)
    assert set(hosts(plan).values()) == {"n1"}
    plan = spread(four(gives=8000 * MB), HOME, OTHERS)
    assert set(hosts(plan).values()) == {"n1"}


def test_chain_of_stages_stays_together() -> None:
    works = [Work(stage=number, needs=(number - 1,) if number else (), seconds=30) for number in range(5)]
    assert set(hosts(spread(works, HOME, OTHERS)).values()) == {"n1"}


def test_second_stage_of_a_chain_follows_the_first_to_where_its_files_are() -> None:
    works = [
        Work(stage=0, seconds=50),
        Work(stage=1, seconds=20, gives=1000 * MB),
        Work(stage=2, needs=(1,), seconds=20),
        Work(stage=3, needs=(0, 2), seconds=1, stays="its result is wanted here"),
    ]
    found = hosts(spread(works, HOME, OTHERS))
    assert found[0] == "n1" and found[1] == found[2] != "n1"


def test_what_saves_less_than_it_costs_is_not_done() -> None:
    plan = spread(four(seconds=LEAST / 4), HOME, OTHERS)
    assert set(hosts(plan).values()) == {"n1"}


def test_stage_that_is_cached_or_must_stay_goes_nowhere() -> None:
    works = four()
    works[0] = Work(stage=0, seconds=0)
    works[1] = Work(stage=1, seconds=20, stays="its RUN has a cache of this host")
    plan = spread(works, HOME, OTHERS)
    assert hosts(plan)[0] == hosts(plan)[1] == "n1" and hosts(plan)[2] != "n1"
    assert next(p.why for p in plan if p.stage == 1) == "its RUN has a cache of this host"


def test_host_without_room_gets_nothing() -> None:
    plan = spread(four(), HOME, (Host(name="n2", room=0), Host(name="n3")))
    assert "n2" not in hosts(plan).values() and "n3" in hosts(plan).values()


def test_stages_that_need_each_other_are_an_error() -> None:
    with pytest.raises(ValueError, match="need each other"):
        spread([Work(stage=0, needs=(1,)), Work(stage=1, needs=(0,))], HOME)


@pytest.mark.parametrize("seed", range(60))
def test_any_plan_keeps_the_order_the_room_and_is_no_worse_than_home(seed: int) -> None:
    chance = random.Random(seed)
    works = [
        Work(
            stage=number,
            needs=tuple(one for one in range(number) if chance.random() < 0.25),
            seconds=chance.choice([0.0, chance.random() * 60]),
            moves=int(chance.expovariate(1 / (500 * MB))),
            gives=int(chance.expovariate(1 / (100 * MB))),
            stays=chance.choice(["", "", "", "here"]),
        )
        for number in range(chance.randrange(1, 15))
    ]
    home = Host(name="n1", room=chance.randrange(1, 4))
    others = tuple(
        Host(name=f"n{number}", room=chance.randrange(3), rate=chance.uniform(1, 500) * MB)
        for number in range(2, 5)
    )
    plan = spread(works, home, others)
    assert plan == spread(reversed(works), home, others)
    places = {place.stage: place for place in plan}
    assert sorted(places) == [work.stage for work in works]
    assert end(plan) <= end(spread(works, home)) + 1e-9
    for work in works:
        place = places[work.stage]
        assert place.why or place.host == "n1"
        assert not work.stays or place.host == "n1"
        for need in work.needs:
            assert places[need].ends <= place.begins + 1e-9
    for host in (home, *others):
        busy = [p for p in plan if p.host == host.name and p.ends > p.begins]
        for one in busy:
            together = sum(other.begins <= one.begins < other.ends - 1e-9 for other in busy)
            assert together <= max(1, host.room)


def test_hosts_are_asked_before_they_begin() -> None:
    plan = spread(four(), HOME, OTHERS)
    assert all(place.begins >= ASKED for place in plan if place.host != "n1")
    begun = [place.begins for place in plan]
    assert begun == sorted(begun)
