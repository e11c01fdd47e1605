"""What a screen shows of a fault: lines above, the line, a caret under the very place."""

from __future__ import annotations

import pytest

from image.dockerfile.excerpt import WIDTH, excerpt
from image.dockerfile.faults import DockerfileFault
from image.dockerfile.instruction import Spot
from image.dockerfile.parser import parse


def test_caret_stands_under_the_place() -> None:
    text = 'FROM a\nRUN x\n\nCMD ["a", 1]\nUSER y\n'
    with pytest.raises(DockerfileFault) as caught:
        parse(text.encode())
    assert excerpt(text, caught.value.spot) == "\n".join(
        [
            " 2 | RUN x",
            " 3 |",
            ' 4 | CMD ["a", 1]',
            "   |           ^",
        ]
    )


def test_tabs_wide_and_combining_characters_keep_the_caret_in_place() -> None:
    shown = excerpt("\tRUN 日本e\u0301 x", Spot(line=1, column=11)).split("\n")
    assert shown == [" 1 |     RUN 日本e\u0301 x", "   |" + " " * 5 + "    " + "    " + "  " + "^"]


def test_control_characters_are_not_shown() -> None:
    shown = excerpt(b"RUN \x1b[31m\xff \xe2\x80\xae\r\n", Spot(line=1, column=99))
    assert shown.replace("\n", "").isprintable()
    assert shown.splitlines()[-1].index("^") == len(" 1 | RUN ·[31m� ·")


def test_long_line_is_cut_around_the_place() -> None:
    shown = excerpt("x" * 5000 + "Y" + "x" * 5000, Spot(line=1, column=5001)).split("\n")
    assert [len(line) <= WIDTH + 6 for line in shown] == [True, True]
    assert shown[0][shown[1].index("^")] == "Y"


@pytest.mark.parametrize("line", [0, 3, 99])
def test_line_that_is_not_there_shows_nothing(line: int) -> None:
    assert excerpt("a\nb", Spot(line=line)) == ""


def test_numbers_of_lines_are_aligned() -> None:
    assert excerpt("\n" * 9 + "x", Spot(line=10)) == "  8 |\n  9 |\n 10 | x\n    | ^"
