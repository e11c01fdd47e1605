"""RUN in real containers: what the process gets, what it says, how it ends."""

from __future__ import annotations

import pytest

from tests.support.buildlab import BuildLab

pytestmark = pytest.mark.kernel


async def test_step_runs_and_its_changes_alone_are_left(building: BuildLab) -> None:
    with building.files() as files:
        code, said = await building.run("echo made > /made; echo out; echo err >&2", files=files)
        assert (code, said.out, said.err) == (0, b"out\n", b"err\n")
        assert files.changed() == ["made"]


async def test_step_that_fails_gives_its_code(building: BuildLab) -> None:
    code, said = await building.run("echo no >&2; exit 7")
    assert (code, said.err) == (7, b"no\n")
