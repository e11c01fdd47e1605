"""Whatever text a Dockerfile's words, ignore file and globs are: a result or a refusal, soon."""

from __future__ import annotations

import os
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from image.dockerfile.globs import GlobFault, match
from image.dockerfile.ignore import Ignore
from image.dockerfile.patterns import Folder, Patterns
from image.dockerfile.words import Quotes, WordFault, expanded
from model.errors import InvalidInput

FULL = os.environ.get("FLOTA_FULL") == "1"
pytestmark = pytest.mark.timeout(900 if FULL else 120)
examples = settings(
    max_examples=20_000 if FULL else 400,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
SIGNS = ["$", "${", "}", "'", '"', "\\", ":-", "+", "?", "#", "%", "/", "a", "b", " ", "<<", "\n", "*", "é"]
TEXT = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(SIGNS), max_size=30).map("".join))
VALUES = st.one_of(st.text(max_size=20), st.sampled_from(["", "a/b", "*", "\\*", " x  y "]))
PIECES = ["a", "b", "*", "**", "?", "/", "[a-b]", "[^a]", "!", "\\", ".", "**/", "\n", "é", "[", "]"]
PATTERN = st.one_of(st.text(max_size=20), st.lists(st.sampled_from(PIECES), max_size=10).map("".join))
NAME = st.text(alphabet="ab.é*-\udcff", min_size=1, max_size=3).filter(lambda n: n not in (".", ".."))
PATHS = st.lists(st.lists(NAME, min_size=1, max_size=4).map("/".join), min_size=1, max_size=8)


@examples
@given(TEXT, st.dictionaries(st.sampled_from(["a", "b", "ab"]), VALUES), st.sampled_from("\\`"), st.data())
def test_word_of_any_kind_is_expanded_or_refused(
    text: str, env: dict[str, str], escape: str, data: st.DataObject
) -> None:
    quotes: Quotes = data.draw(st.sampled_from(["removed", "kept", "plain"]))
    keep = data.draw(st.booleans())
    try:
        result = expanded(text, env.get, escape=escape, quotes=quotes, keep_unset=keep)
    except WordFault as fault:
        assert 0 <= fault.offset <= len(text)
        return
    assert result.used <= set(env) and not result.unset & set(env)
    if not any(sign in text for sign in ("$", "'", '"', escape)):
        assert result.text == text


@examples
@given(st.lists(PATTERN, max_size=5), PATHS)
def test_ignore_file_of_any_kind_leaves_out_the_same_by_walk_and_by_path(
    lines: list[str], paths: list[str]
) -> None:
    try:
        ignore = Ignore.parse("\n".join(lines).encode("utf-8", "surrogateescape"))
    except (InvalidInput, UnicodeEncodeError):
        return
    for path in paths:
        folder = ignore.root
        *above, name = path.split("/")
        for part in above:
            folder = folder.enter(part)
            assert isinstance(folder, Folder)
        assert folder.matches(name) == ignore.excludes(path)
        assert folder.enter(name).matched == folder.matches(name)


@examples
@given(PATTERN, PATHS)
def test_glob_matches_what_the_list_of_it_alone_does(pattern: str, paths: list[str]) -> None:
    """Where they should agree: one name, no `**`, none of the signs that only a list has."""
    if "**" in pattern or not re.fullmatch(r"[^!/#\s.][^/\s]*", pattern):
        return
    names = [path for path in paths if "/" not in path]
    try:
        expected = [match(pattern, name) for name in names]
    except GlobFault:
        with pytest.raises(InvalidInput):
            Patterns([pattern])
        return
    assert [Patterns([pattern]).matches(name) for name in names] == expected
