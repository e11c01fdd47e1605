"""What a Dockerfile offers: targets, arguments, secrets, agents, with what their comments say of them."""

from __future__ import annotations

import pytest

from image.build.described import Argument, Asked, Target, described, targets
from image.build.graph import Scene
from image.dockerfile.parser import parse
from model.errors import InvalidInput

TEXT = b"""\
# GO is the compiler's version
ARG GO=1.22
ARG BASE=golang:$GO
ARG UNUSED=1
# compile makes the program
FROM $BASE AS compile
# FLAGS are the compiler's
# and not the linker's
ARG FLAGS="-v -x" GO
RUN --mount=type=secret,id=netrc --mount=type=ssh make

FROM alpine AS docs
ARG THEME=dark
RUN --mount=type=secret,id=theme make

# not a description
FROM alpine
ARG LATE
COPY --from=compile /x /
RUN --mount=type=secret,id=netrc,required cat
"""


def test_targets_are_named_stages_and_the_last() -> None:
    assert targets(parse(TEXT)) == (
        Target(name="compile", base="$BASE", description="makes the program", line=6),
        Target(name="docs", base="alpine", line=12),
        Target(name="2", base="alpine", default=True, line=17),
    )


def test_default_target_needs_no_other_stage_than_it_copies_from() -> None:
    found = described(parse(TEXT), Scene())
    assert found.args == (
        Argument(name="GO", value="1.22", description="is the compiler's version", line=2),
        Argument(name="BASE", value="golang:1.22", line=3),
        Argument(name="FLAGS", value="-v -x", description="are the compiler's", line=9),
        Argument(name="LATE", line=18),
    )
    assert found.secrets == (Asked(name="netrc", required=True, line=10),)
    assert found.ssh == (Asked(name="default", line=10),)
    assert (found.target, found.description) == ("stage-2", "")


def test_named_target_has_its_own_and_given_values() -> None:
    found = described(parse(TEXT), Scene(target="docs", args={"THEME": "light"}))
    assert [(arg.name, arg.value) for arg in found.args] == [("THEME", "light")]
    assert [asked.name for asked in found.secrets] == ["theme"]
    compile_ = described(parse(TEXT), Scene(target="Compile", args={"GO": "1.23"}))
    assert [(arg.name, arg.value) for arg in compile_.args] == [
        ("GO", "1.23"),
        ("BASE", "golang:1.23"),
        ("FLAGS", "-v -x"),
    ]
    assert compile_.description == "makes the program"


def test_target_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidInput, match="nope"):
        described(parse(TEXT), Scene(target="nope"))
