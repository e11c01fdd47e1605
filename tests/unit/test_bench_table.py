"""Rows of the benchmark table."""

from __future__ import annotations

import pytest

from bench.table import Figure, Samples, failed, interval, markdown, render, row, selected

START = Figure(name="start.api", what="x", unit="ms", goal=0.4, better="less", peer="docker")
RATE = Figure(name="overlay.routed", what="x", unit="Gbit/s", goal=0.85, better="more", peer="by hand")


def test_a_ratio_is_the_median_of_the_pairs_not_of_the_sides() -> None:
    got = row(START, Samples(ours=(10, 100, 30), peer=(100, 200, 50)))
    assert got.ratio == 0.5 and got.ours == 30 and got.peer == 100 and not got.met and got.runs == 3


@pytest.mark.parametrize(("ours", "met"), [(84.0, False), (85.0, True), (120.0, True)])
def test_a_rate_meets_its_goal_from_below(ours: float, met: bool) -> None:
    assert row(RATE, Samples(ours=(ours,) * 4, peer=(100.0,) * 4)).met is met


def test_an_absent_peer_is_not_met() -> None:
    assert not row(START, Samples(ours=(1.0, 2.0))).met
    assert not failed(START, "no docker").met
    assert "no docker" in render([failed(START, "no docker")])


def test_the_table_for_documents_has_a_line_per_figure() -> None:
    rows = [row(RATE, Samples(ours=(9.0,) * 4, peer=(10.0,) * 4)), failed(START, "no docker")]
    head, rule, *lines = markdown(rows).splitlines()
    assert len({line.count("|") for line in (head, rule, *lines)}) == 1
    assert "| 9 Gbit/s | 10 (by hand) | – | 0.9 (0.9–0.9) | ≥ 0.85 | yes |" in lines[0]
    assert lines[1].endswith("| no |")


@pytest.mark.parametrize(("count", "low", "high"), [(1, 0, 0), (5, 0, 4), (6, 0, 5), (10, 1, 8), (12, 2, 9)])
def test_interval_of_a_median_is_that_of_the_sign_test(count: int, low: int, high: int) -> None:
    assert interval([float(n) for n in reversed(range(count))]) == (low, high)


def test_names_select_by_prefix() -> None:
    assert selected([START, RATE], ["start"]) == [START]
    assert selected([START, RATE], []) == [START, RATE]
    assert selected([START, RATE], ["over", "start.api"]) == [START, RATE]
