"""`flota build --call`: its words, its tables and its JSON."""

from __future__ import annotations

import json

import pytest

from cli.build.described import Call, call, told
from model.build import BuildRequest
from model.errors import InvalidInput, Unsupported

TEXT = b"""\
# app is the program
FROM alpine AS app
# LEVEL is how much it says
ARG LEVEL=info
RUN --mount=type=secret,id=key,required --mount=type=ssh true
FROM app
"""


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("build", Call()),
        ("check", Call(what="check")),
        ("outline", Call(what="outline")),
        ("targets,format=json", Call(what="targets", json=True)),
        ("outline,format=text", Call(what="outline")),
    ],
)
def test_call_is_what_it_says(text: str, wanted: Call) -> None:
    assert call(text) == wanted


@pytest.mark.parametrize("text", ["", "lint", "outline,format=xml", "build,format=json"])
def test_call_that_is_not_known_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="not known"):
        call(text)


def test_targets_are_a_table() -> None:
    assert told(call("targets"), TEXT, BuildRequest(dockerfile=TEXT)).splitlines() == [
        "TARGET        BASE     DESCRIPTION",
        "app           alpine   is the program",
        "1 (default)   app",
    ]


def test_outline_tells_arguments_secrets_and_agents() -> None:
    request = BuildRequest(dockerfile=TEXT, target="app", args={"LEVEL": "debug"})
    assert told(call("outline"), TEXT, request).splitlines() == [
        "TARGET: app",
        "DESCRIPTION: is the program",
        "",
        "BUILD ARG   VALUE   DESCRIPTION",
        "LEVEL       debug   is how much it says",
        "",
        "SECRET   REQUIRED",
        "key      yes",
        "",
        "SSH       REQUIRED",
        "default",
    ]


def test_outline_as_json_is_what_the_table_says() -> None:
    found = json.loads(told(call("outline,format=json"), TEXT, BuildRequest(dockerfile=TEXT)))
    assert found["target"] == "stage-1"
    assert [arg["name"] for arg in found["args"]] == ["LEVEL"]
    assert found["secrets"] == [{"name": "key", "required": True, "line": 5}]


def test_dockerfile_that_only_a_host_has_is_refused() -> None:
    with pytest.raises(Unsupported, match="--file"):
        told(call("targets"), b"", BuildRequest(dockerfile=b""))


def test_control_characters_of_a_description_reach_no_terminal() -> None:
    text = b"# a \x1b[31m\nFROM b AS a\n"
    assert "\x1b" not in told(call("targets"), text, BuildRequest(dockerfile=text))
    assert "\x1b" not in told(call("outline"), text, BuildRequest(dockerfile=text))
