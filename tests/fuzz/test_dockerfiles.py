"""Whatever bytes come, a Dockerfile is a value with places within the file, or one clear line."""

from __future__ import annotations

import os

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from image.dockerfile.check import check, parse_options
from image.dockerfile.excerpt import excerpt
from image.dockerfile.faults import DockerfileFault, Mistake
from image.dockerfile.fields import duration, mode, owner, platform, ports, stop_signal
from image.dockerfile.instruction import Dockerfile, Mount, Onbuild, Spot
from image.dockerfile.mounts import parsed
from image.dockerfile.parser import parse, parse_trigger, tree

FULL = os.environ.get("FLOTA_FULL") == "1"
pytestmark = pytest.mark.timeout(900 if FULL else 120)
examples = settings(
    max_examples=10_000 if FULL else 200,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
WORDS = (
    *(
        "FROM a",
        "FROM a AS b",
        "FROM scratch",
        "RUN",
        "COPY",
        "ADD",
        "ENV",
        "LABEL",
        "ARG",
        "CMD",
        "ENTRYPOINT",
    ),
    *("ONBUILD", "HEALTHCHECK", "EXPOSE", "VOLUME", "USER", "WORKDIR", "SHELL", "STOPSIGNAL", "MAINTAINER"),
    *("# escape=`", "# check=skip=all", "--from=b", "--mount=type=cache,target=/x", "--chown=1:2", "--x"),
    *(
        "<<E",
        "<<-'E'",
        "\nE\n",
        "\n",
        "\r\n",
        "\\\n",
        "`\n",
        " ",
        "\t",
        "#",
        "$a",
        "${a:-b}",
        "a=b",
        "80/udp",
    ),
    *('["a", "b"]', '["a"', "['a']", '"', "'", "“a”", "\\", "NONE", "apt-get update && apt-get install x"),
)
texts = st.lists(st.sampled_from(WORDS) | st.text(max_size=8), max_size=24).map(" ".join)
pieces = st.lists(st.sampled_from(WORDS) | st.text(max_size=8), max_size=24).map("".join)


def judge(data: bytes) -> Dockerfile | None:
    lines = data.count(b"\n") + 1
    try:
        found = parse(data, file="D")
    except DockerfileFault as fault:
        assert "\n" not in str(fault)
        assert str(fault).isprintable()
        assert 1 <= fault.spot.line <= lines
        assert fault.spot.column >= 1
        excerpt(data, fault.spot)
        return None
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=Dockerfile) == found
    for warned in check(found):
        assert 1 <= warned.spot.line <= lines
        assert (warned.message + warned.hint).isprintable()
    last = 0
    for stage in found.stages:
        for one in (stage.head, *stage.instructions):
            assert last < one.spot.line <= one.last_line <= lines
            assert "\n" not in one.source
            last = one.last_line
            if isinstance(one, Onbuild):
                fired = parse_trigger(one.expression, Spot(line=1))
                assert fired.trigger
    return found


@examples
@given(texts | pieces)
def test_dockerfile_of_words_is_a_value_or_one_line(text: str) -> None:
    judge(text.encode("utf-8", "replace"))
    judge(b"FROM a\n" + text.encode("utf-8", "replace"))


@examples
@given(st.binary(max_size=300), st.booleans())
def test_dockerfile_of_bytes_is_a_value_or_one_line(data: bytes, headed: bool) -> None:
    judge(b"FROM a\n" + data if headed else data)


@examples
@given(texts | pieces)
def test_trigger_of_any_text_is_a_value_or_one_line(text: str) -> None:
    try:
        found = parse_trigger(text, Spot(line=7, column=3))
    except DockerfileFault as fault:
        assert fault.spot == Spot(line=7, column=3)
        assert str(fault).isprintable()
    else:
        assert found.spot == Spot(line=7, column=3)


@examples
@given(texts | pieces)
def test_words_of_a_tree_stand_where_it_says(text: str) -> None:
    try:
        nodes = tree(text.encode("utf-8", "replace"))
    except DockerfileFault:
        return
    for node in nodes:
        for word, at in zip(node.words, node.at, strict=True):
            assert node.json or node.line.text.startswith(word, at)


@examples
@given(st.text(max_size=60) | st.from_regex(r"(\w{1,9}=[\w/$,\"]{0,9},?){0,6}"))
def test_mount_of_any_text_is_a_value_or_a_mistake(text: str) -> None:
    for expand in (None, lambda word: word):
        try:
            assert isinstance(parsed(text, expand), Mount)
        except Mistake as mistake:
            assert 0 <= mistake.at <= len(text)


@examples
@given(st.text(max_size=30) | st.from_regex(r"[-+0-9a-zA-Z.:/=,()]{0,20}"))
def test_fields_of_any_text_are_values_or_mistakes(text: str) -> None:
    for judge_one in (duration, owner, mode, platform, ports, stop_signal):
        try:
            judge_one(text)
        except Mistake as mistake:
            assert 0 <= mistake.at <= len(text)
    assert isinstance(parse_options(text).error, bool)
