"""Many hosts' answers as one: what some lack is told."""

from __future__ import annotations

import pytest

from api.fanout import Outcome, per_host
from model.errors import Unavailable


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("no disk", "n1: no disk"),
        ("a\r\nSet-Cookie: b\n", "n1: a Set-Cookie: b"),
        ("\x1b[31mred\x00\x7f\x9b", "n1: ?[31mred???"),
        ("größe", "n1: gr??e"),
        ("x" * 9000, "n1: " + "x" * 3996),
    ],
)
def test_hosts_that_are_missing_are_told_in_a_header_that_http_takes(said: str, told: str) -> None:
    assert per_host(Outcome(replies=(), errors=(("n1", Unavailable(said)),))) == {"Flota-Warning": told}


def test_list_without_missing_hosts_has_no_warning() -> None:
    assert per_host(Outcome(replies=(("n1", 1),), errors=())) == {}
