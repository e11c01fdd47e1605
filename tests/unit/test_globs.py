"""Globs of COPY's sources: Go's own table, and names of all kinds."""

from __future__ import annotations

import json
import re
import time

import pytest

from image.dockerfile.globs import GlobFault, has_wildcards, literal, match
from tests.support.mobyrows import SOURCE, STRING


def test_globs_of_gos_own_table_match_as_it_says() -> None:
    source = SOURCE.read_text()
    table = source[source.index("matchTests = []") :]
    rows = re.findall(rf"\{{{STRING}, {STRING}, (true|false), (nil|filepath\.ErrBadPattern)\}}", table)
    assert len(rows) >= 50
    wrong = []
    for pattern, name, expected, error in rows:
        if (pattern, name) == ('"a*"', '"ab/c"'):
            continue  # the one row that is moby's: there a folder's match is its contents' too
        try:
            got = (match(json.loads(pattern), json.loads(name)), "nil")
        except GlobFault:
            got = (False, "filepath.ErrBadPattern")
        if got != (expected == "true", error):
            wrong.append((pattern, name, got))
    assert wrong == []


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("*.go", "a.go", True),
        ("*.go", "d/a.go", False),
        ("*/*.go", "d/a.go", True),
        ("d/*", "d/", True),
        ("**", "a/b", False),
        ("a\\*", "a*", True),
        ("a\\*", "ab", False),
        ("?", "ß", True),
        ("?", "\udcff", True),
        ("[a-c\\]]x", "]x", True),
        ("*\n?", "a\nb", True),
        ("*[^a]*c", "xy/c", False),
    ],
)
def test_glob_matches_a_whole_name_as_go_does(pattern: str, name: str, matches: bool) -> None:
    assert match(pattern, name) == matches


@pytest.mark.parametrize(
    ("pattern", "offset"), [("a[", 1), ("a[]b]", 2), ("[a-]", 3), ("a\\", 1), ("[\\", 1), ("x[b-a]", 5)]
)
def test_glob_that_is_wrong_is_refused_at_its_character(pattern: str, offset: int) -> None:
    with pytest.raises(GlobFault) as caught:
        match(pattern, "a")
    assert caught.value.offset == offset


@pytest.mark.parametrize(
    ("text", "wild"),
    [("a", False), ("a*", True), ("a\\*", False), ("a\\\\*", True), ("[a]", True), ("\\", False)],
)
def test_glob_without_signs_stands_for_one_name(text: str, wild: bool) -> None:
    assert has_wildcards(text) == wild


@pytest.mark.parametrize("pattern", ["a*" * 2000 + "b", "*?a" * 2000 + "z", "*[ab]" * 1000 + "z"])
def test_glob_made_to_be_slow_is_not(pattern: str) -> None:
    started = time.process_time()
    assert not match(pattern, "a" * 100_000)
    assert time.process_time() - started < 3.0


@pytest.mark.parametrize("name", ["plain", "[id]", "a*b?", "a\\b", "[^x-z]", "]", "\\", "**", "-"])
def test_literal_of_a_name_matches_it_alone(name: str) -> None:
    pattern = literal(name)
    assert match(pattern, name) and has_wildcards(pattern) is (pattern != name)
    assert not any(match(pattern, other) for other in ("i", "ab", "axb", "w", f"{name}x", f"x{name}"))
