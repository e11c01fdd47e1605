"""Which images go when a disk is full, and what a lease keeps."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image.collection import Disk, Stored, needed, victims
from image.leases import Leases

NOW = 1000.0
SIZES: Mapping[str, int] = {"base": 100, "a": 10, "b": 20, "c": 30}
OLD = Stored(id="old", chains=("base", "a"), used_at=1.0)
MIDDLE = Stored(id="middle", chains=("base", "b"), used_at=2.0)
NEW = Stored(id="new", chains=("c",), used_at=3.0)
ALL = [NEW, OLD, MIDDLE]


def chosen(need: int, *, spared: tuple[str, ...] = (), unused_before: float = NOW) -> tuple[str, ...]:
    return victims(ALL, SIZES, spared=spared, need=need, unused_before=unused_before)


@pytest.mark.parametrize(
    ("need", "gone"),
    [(0, ()), (1, ("old",)), (10, ("old",)), (11, ("old", "middle")), (131, ("old", "middle", "new"))],
)
def test_victims_are_the_longest_unused_as_many_as_are_needed(need: int, gone: tuple[str, ...]) -> None:
    assert chosen(need) == gone


def test_victims_spare_what_is_needed_and_what_was_used_lately() -> None:
    assert chosen(500, spared=("old",)) == ("middle", "new")
    assert chosen(500, unused_before=1.5) == ("old",)
    assert chosen(500, spared=("old", "middle", "new")) == ()


def test_victims_leave_an_image_whose_going_would_free_nothing() -> None:
    alias = Stored(id="alias", chains=("base",), used_at=0.0)
    assert victims([alias, OLD], SIZES, spared=("old",), need=50, unused_before=NOW) == ()
    assert victims([alias, OLD, MIDDLE], SIZES, spared=(), need=10, unused_before=NOW) == ("old",)


IMAGES = st.lists(
    st.tuples(st.sets(st.sampled_from("abcdef"), min_size=1), st.integers(0, 9), st.booleans()), max_size=8
)


@given(IMAGES, st.integers(0, 40), st.integers(0, 9))
def test_victims_free_all_that_may_go_or_what_is_needed(
    drawn: list[tuple[set[str], int, bool]], need: int, before: int
) -> None:
    images = [Stored(id=str(n), chains=tuple(sorted(c)), used_at=at) for n, (c, at, _) in enumerate(drawn)]
    spared = {image.id for image, (_, _, kept) in zip(images, drawn, strict=True) if kept}
    sizes = {chain: 1 + ord(chain) - ord("a") for chain in "abcdef"}
    gone = set(victims(images, sizes, spared=spared, need=need, unused_before=before))

    def freed(idents: set[str]) -> int:
        kept = {chain for image in images if image.id not in idents for chain in image.chains}
        had = {chain for image in images for chain in image.chains}
        return sum(sizes[chain] for chain in had - kept)

    free = {image.id for image in images if image.id not in spared and image.used_at <= before}
    assert gone <= free
    assert freed(gone) >= min(need, freed(free))
    for ident in gone:
        assert freed(gone - {ident}) < freed(gone)


@pytest.mark.parametrize(
    ("free", "high", "low", "bytes_"),
    [(15, 85, 75, 10), (16, 85, 75, 0), (0, 85, 75, 25), (0, 100, 75, 0), (5, 90, 90, 5)],
)
def test_needed_is_what_brings_a_disk_from_high_to_low(free: int, high: int, low: int, bytes_: int) -> None:
    assert needed(Disk(capacity=100, free=free), high, low) == bytes_


def test_needed_of_a_file_system_without_size_is_nothing() -> None:
    assert needed(Disk(capacity=0, free=0), 85, 75) == 0


def test_lease_that_ends_tells_only_of_what_was_left_for_its_sake() -> None:
    told: list[str] = []
    leases = Leases(lambda: told.append("ended"))
    with leases.hold(["x"]), leases.hold(["x", "y"]):
        assert "x" in leases and leases.keeps("x")
    assert told == ["ended"] and "x" not in leases
    with leases.hold(["x"]):
        assert not leases.keeps("z")
    assert told == ["ended"]


def test_lease_shared_by_two_lasts_until_the_last_has_ended() -> None:
    told: list[str] = []
    leases = Leases(lambda: told.append("ended"))
    with leases.hold(["x"]):
        with leases.hold(["x"]):
            assert leases.keeps("x")
        assert "x" in leases and told == []
    assert "x" not in leases and told == ["ended"]
