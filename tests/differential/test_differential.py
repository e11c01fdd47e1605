"""Each rule of the Dockerfile reference: flota's image is that of the builders that agree on it.

In short the `quick` cases, all with FLOTA_FULL=1.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.differential.builders import Outcome
from tests.differential.case import FLOTA, Case
from tests.differential.conftest import Bench
from tests.differential.table import CASES
from tests.differential.trees import changed, differences, shown

pytestmark = [pytest.mark.rig, pytest.mark.timeout(600)]


def faults(case: Case, outcomes: dict[str, Outcome], bench: Bench) -> list[str]:
    """What is not as the case says; a line each."""
    return [
        line
        for name, got in outcomes.items()
        for line in (_dissent if name in case.dissent else _agreed)(name, got, case, outcomes, bench)
    ]


def _agreed(name: str, got: Outcome, case: Case, outcomes: dict[str, Outcome], bench: Bench) -> list[str]:
    if case.error is not None:
        if got.image:
            return [f"{name} builds what is to be refused"]
        words = case.error if name == FLOTA else ()
        return [f"{name} does not say {w!r}: {got.said}" for w in words if w.lower() not in got.said.lower()]
    if got.image is None:
        return [f"{name} fails: {got.said[-1500:]}"]
    lines = [
        f"{name}: config {key}: {shown(got.image.config.get(key))}, not {shown(value)}"
        for key, value in case.config.items()
        if got.image.config.get(key) != value
    ]
    if case.golden is not None:
        made = changed(bench.base if "bin/busybox" in got.image.tree else {}, got.image.tree)
        lines += [
            f"{name}: /{path}: {shown(made.get(path))}, not {shown(case.golden.get(path))}"
            for path in sorted(made.keys() | case.golden.keys())
            if path not in case.golden or path not in made or made[path] != case.golden[path]
        ]
    first = next((other for other in case.agreeing if other in outcomes and outcomes[other].image), name)
    theirs = outcomes[first].image
    if first != name and theirs:
        lines += [f"{name} | {first}: {line}" for line in differences(got.image, theirs)]
    return lines


def _dissent(name: str, got: Outcome, case: Case, outcomes: dict[str, Outcome], bench: Bench) -> list[str]:
    """Whether it still is of another opinion."""
    as_others = not _agreed(name, got, case, outcomes, bench)
    return [f"{name} agrees by now: {case.dissent[name]}"] if as_others else []


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.name, marks=() if case.quick else (pytest.mark.slow,)) for case in CASES],
)
def test_image_is_the_one_that_other_builders_make(case: Case, bench: Bench, tmp_path: Path) -> None:
    outcomes = bench.outcomes(case, tmp_path)
    lines = faults(case, outcomes, bench)
    assert not lines, "\n".join((case.rule, *lines))


def test_table_has_a_case_for_each_rule_once() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names)) >= 150
