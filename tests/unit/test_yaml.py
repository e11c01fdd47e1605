"""YAML of people: what its words mean, and what is refused in which words."""

from __future__ import annotations

import pytest

from cli.parse.yaml12 import parse_yaml
from model.errors import InvalidInput


def test_words_mean_what_they_look_like() -> None:
    text = (
        "a: yes\nb: on\nc: 22:22\nd: 010\ne: 2026-01-01\nf: true\ng: -7\nh:\ni: ~\nj: 1.5\nk: '80'\nl: 0x1f\n"
    )
    assert parse_yaml("f", text) == {
        "a": "yes",
        "b": "on",
        "c": "22:22",
        "d": "010",
        "e": "2026-01-01",
        "f": True,
        "g": -7,
        "h": None,
        "i": None,
        "j": "1.5",
        "k": "80",
        "l": "0x1f",
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &x [1]\nb: *x", "line 1: anchors"),
        ("a: *x", "line 1: anchors"),
        ("a: !!python/object:os.system x", "line 1: tags"),
        ("a: !!set {x}", "tags"),
        ("a: 1\nb: 2\na: 3", "line 3, column 1: 'a' is said twice"),
        ("1: 2", "a key is not a word"),
        ("? [a]\n: 2", "a key is not a word"),
        ("a: 1\n---\nb: 2", "one document"),
        ("[" * 33 + "]" * 33, "nested more than 32 deep"),
        ("\ta: 1", "line 1, column 1"),
        ("a: [", "line 2, column 1"),
        ("a: \x00", "control characters"),
        ("#" * (1 << 20) + "\n", "larger than 1 MiB"),
        ("a: {<<: {b: 1}, <<: 2}", "said twice"),
    ],
)
def test_what_is_large_or_strange_is_refused_with_its_place(text: str, words: str) -> None:
    with pytest.raises(InvalidInput) as error:
        parse_yaml("f", text)
    assert words in str(error.value) and len(str(error.value)) < 400
