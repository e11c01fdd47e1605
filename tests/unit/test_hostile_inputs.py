"""The table of hostile inputs names tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.hostileinputs import HOSTILE_INPUTS

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize(("what", "tests"), HOSTILE_INPUTS.values(), ids=HOSTILE_INPUTS)
def test_hostile_input_has_its_tests(what: str, tests: tuple[str, ...]) -> None:
    assert what and tests
    for test in tests:
        path, _, name = test.partition("::")
        assert re.search(rf"^(async )?def {name}\(", (TESTS / path).read_text(), re.MULTILINE), test


def test_table_of_hostile_inputs_has_no_gap() -> None:
    assert list(HOSTILE_INPUTS) == [f"B{number}" for number in range(38, 84)]
