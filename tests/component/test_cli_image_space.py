"""`flota image prune`, `image gc`, `df` and the settings that rule them, against a fleet in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servedfleet import ServedFleet, served


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[ServedFleet]:
    with served(tmp_path) as made:
        yield made


def test_prune_tells_per_host_what_went_and_why_others_stay(fleet: ServedFleet) -> None:
    fleet.ok("run", "-d", "--name", "web", "box:1", "sleep")
    fleet.ok("pull", "-q", "library/alpine:3")
    assert fleet.ok("image", "prune", "-f") == "Total reclaimed space: 0B\n"
    lines = fleet.ok("image", "prune", "-af").splitlines()
    assert "n1: untagged: alpine:3" in lines or "n1: untagged: library/alpine:3" in lines
    assert sum("box:1: a container is made of it" in line for line in lines) == 1
    assert lines[-1].startswith("Total reclaimed space: ")


def test_prune_takes_what_its_filters_fit(fleet: ServedFleet) -> None:
    fleet.ok("image", "prune", "-af", "--filter", "label=none")
    assert "box" in fleet.ok("images")
    for wrong in ("colour=red", "until=soon"):
        assert fleet.flota("image", "prune", "-af", "--filter", wrong).returncode == 1
    fleet.ok("image", "prune", "-af", "--filter", "until=1s", "--filter", "label!=none", "--node", "n1")
    assert fleet.ok("images").count("n2,n3") == 1


def test_gc_makes_room_down_to_a_share_of_the_disk(fleet: ServedFleet) -> None:
    assert fleet.ok("image", "gc") == "Total reclaimed space: 0B\n"
    assert "n2: deleted: sha256:" in fleet.ok("image", "gc", "--to", "60%", "--node", "n2")
    for wrong in ("101", "-1", "half"):
        done = fleet.flota("image", "gc", "--to", wrong)
        assert done.returncode == 1 and b"is no percentage" in done.stderr


def test_df_shows_each_host_and_what_could_be_had_back(fleet: ServedFleet) -> None:
    lines = fleet.ok("df").splitlines()
    assert lines[0].split() == ["NODE", "TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE", "DISK"]
    assert len(lines) == 4 and "250B (25%)" in lines[1] and "75% of 4" in lines[1]
    assert [row["host"] for row in fleet.json("df", "--node", "n2")] == ["n2"]


def test_image_settings_are_changed_live_and_checked(fleet: ServedFleet) -> None:
    fleet.ok("fleet", "update", "--image-gc-high", "90%", "--image-gc-low", "60", "--image-keep", "5")
    fleet.ok("fleet", "update", "--image-gc-min-age", "1h")
    wanted = {"gc_high": 90, "gc_low": 60, "keep": 5, "min_age": 3600.0}
    assert json.loads(fleet.ok("fleet", "inspect"))["images"] == wanted
    done = fleet.flota("fleet", "update", "--image-gc-high", "many")
    assert done.returncode == 1 and b"--image-gc-high 'many' is no percentage" in done.stderr


def test_build_cache_settings_are_changed_live_and_checked(fleet: ServedFleet) -> None:
    fleet.ok("fleet", "update", "--build-cache-size", "50g", "--build-cache-free", "20%")
    fleet.ok("fleet", "update", "--build-cache-age", "7d")
    wanted = {"max_size": 50 << 30, "max_age": 7 * 86400.0, "min_free": 20}
    assert json.loads(fleet.ok("fleet", "inspect"))["build_cache"] == wanted
    done = fleet.flota("fleet", "update", "--build-cache-free", "101")
    assert done.returncode == 1 and b"--build-cache-free '101' is no percentage" in done.stderr
