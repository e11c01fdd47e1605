"""What a registry's challenge says, and where plain HTTP is allowed."""

from __future__ import annotations

import time

import pytest

from image.registry.auth import Challenge, TokenReply, challenges, preferred
from image.registry.endpoints import is_loopback
from model.registries import Login


def test_bearer_challenge_is_read_with_its_quoted_commas() -> None:
    header = 'Bearer realm="https://auth/token",service="reg",scope="repository:a/b:pull,push"'
    assert challenges([header]) == [
        Challenge(
            scheme="bearer", realm="https://auth/token", service="reg", scope="repository:a/b:pull,push"
        )
    ]


@pytest.mark.parametrize(
    "headers",
    [
        ['Basic realm="x"', 'Bearer realm="y"'],
        ['Basic realm="x", Bearer realm="y"'],
        ["BEARER realm=y, basic realm=x"],
    ],
)
def test_bearer_is_preferred_wherever_it_stands(headers: list[str]) -> None:
    chosen = preferred(challenges(headers))
    assert chosen is not None and (chosen.scheme, chosen.realm) == ("bearer", "y")


def test_escaped_quotes_are_part_of_a_value() -> None:
    [found] = challenges([r'Basic realm="a\"b"'])
    assert found.realm == 'a"b'


@pytest.mark.parametrize("headers", [[], [""], ["Negotiate"], ["Digest realm=x"], ["=,="]])
def test_what_can_not_be_answered_is_none(headers: list[str]) -> None:
    assert preferred(challenges(headers)) is None


def test_login_is_basic_in_utf_8() -> None:
    assert Login(user="ada", password="pässword").basic == "Basic YWRhOnDDpHNzd29yZA=="


def test_token_lives_as_long_as_it_is_said_within_bounds() -> None:
    assert TokenReply(access_token="x").value == "x"
    assert TokenReply(token="x", expires_in=300).life == 290
    assert TokenReply(token="x", expires_in=-5).life == 5
    assert TokenReply(token="x", expires_in=1e12).life == 3590


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True), ("localhost:5000", True), ("127.0.0.1:5000", True), ("127.9.9.9", True),
        ("[::1]:5000", True), ("[::1]", True), ("10.0.0.1:5000", False), ("localhost.evil.com", False),
        ("127.0.0.1.evil.com", False), ("docker.io", False), ("[2001:db8::1]:5000", False),
    ],
)  # fmt: skip
def test_plain_http_goes_to_loopback_only(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize("begin", ["", "Basic a", "Bearer realm=x", 'Bearer realm="x",'])
def test_longest_blanks_of_a_challenge_are_read_in_no_time(begin: str) -> None:
    """A registry that wants its clients to stand still."""
    began = time.thread_time()
    for _ in range(20):
        challenges([begin + " " * 8100 + "!"])
    assert time.thread_time() - began < 1.0
