"""Reading promised output, and that the README has promises to keep."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.transcript import Step, steps

README = Path(__file__).resolve().parents[2] / "README.md"


@pytest.mark.parametrize(
    ("output", "said", "fits"),
    [
        (("hello",), "hello\n", True),
        (("hello",), "hello world\n", False),
        (("…",), "a\nb\n", True),
        (("…",), "", True),
        ((), "", True),
        ((), "noise", False),
        (("…box…",), "HEAD\nx box y\n", True),
        (("…box…",), "HEAD\nx bix y\n", False),
        (("…n1…ready…", "…n2…ready…"), "ID\na n1 x ready\nb n2 ready z\n", True),
        (("…n1…ready…", "…n2…ready…"), "ID\na n1 x ready\nb n2 lost z\n", False),
    ],
)
def test_promised_output_fits_or_not(output: tuple[str, ...], said: str, fits: bool) -> None:
    assert Step("x", output).fits(said) is fits


def test_the_readme_has_a_transcript_from_start_to_end() -> None:
    commands = [s.command for s in steps(README, "demo")]
    assert (
        commands[0] == "sudo deploy/demo" and commands[-1] == "sudo deploy/demo --down" and len(commands) > 20
    )
