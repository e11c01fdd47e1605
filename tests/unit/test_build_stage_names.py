"""What stages name that can't be, and front ends that a Dockerfile or an argument asks for (B8, B17)."""

from __future__ import annotations

import pytest

from image.dockerfile.faults import DockerfileFault
from model.errors import FlotaError
from tests.support.builds import Lab


@pytest.mark.parametrize(
    ("text", "target", "said"),
    [
        ("FROM base AS a\nCOPY --from=a /x /\n", "", "Dockerfile:2.*this very stage"),
        ("FROM base\nCOPY --from=0 /x /\n", "", "Dockerfile:2"),
        ("FROM base AS a\nCOPY --from=b /x /\nFROM base AS b\n", "a", "Dockerfile:2.*later stage"),
        ("FROM base\nCOPY --from=1 /x /\nFROM base\n", "0", "Dockerfile:2"),
        ("FROM base\nCOPY --from=99 /x /\n", "", "Dockerfile:2"),
        ("FROM base AS a\nCOPY --from=b /x /\nFROM a AS b\nCOPY --from=a /x /\n", "", "Dockerfile:2"),
        ("FROM base AS a\nRUN --mount=from=a,target=/m x\n", "", "Dockerfile:2"),
        ("FROM base AS 1st\n", "", "Dockerfile:1"),
    ],
)
async def test_stage_that_can_not_be_meant_is_refused_with_its_line_and_nothing_runs_b8(
    text: str, target: str, said: str
) -> None:
    it = Lab()
    with pytest.raises(FlotaError, match=said):
        await it.build(text, target=target)
    assert it.ran() == []


async def test_name_of_two_stages_is_the_later_ones_as_for_buildkit_b8() -> None:
    text = "FROM base AS a\nRUN one\nFROM base AS A\nRUN two\nFROM base\nCOPY --from=a /x /\n"
    it = Lab()
    await it.build(text)
    assert it.ran() == ["two", "copy /x"]
    await it.build(text, target="a")
    assert it.ran() == []


@pytest.mark.parametrize(
    ("text", "args"),
    [
        ("# syntax=evil.example/run:1\nFROM base\nRUN one\n", {}),
        ("FROM base\nRUN one\n", {"BUILDKIT_SYNTAX": "evil.example/run:1"}),
    ],
)
async def test_front_end_that_is_named_is_never_fetched_or_run_b17(text: str, args: dict[str, str]) -> None:
    plain, it = Lab(), Lab()
    expected = await plain.image("FROM base\nRUN one\n")
    image = await it.image(text, args=args)
    assert it.ran() == ["one"] and not any("evil" in name for name in it.names())
    assert image.layers == expected.layers and image.config == expected.config


async def test_front_end_is_no_way_around_the_parser_b17() -> None:
    with pytest.raises(DockerfileFault, match="Dockerfile:3"):
        await Lab().build("# syntax=evil.example/run:1\nFROM base\nEVIL x\n")
