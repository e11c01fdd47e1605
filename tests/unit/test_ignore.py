"""What a .dockerignore leaves out: Docker's own table, its rules one by one, and files of an enemy."""

from __future__ import annotations

import json
import re
import time

import pytest

from image.dockerfile.ignore import Ignore
from image.dockerfile.patterns import Folder, Patterns
from model.errors import InvalidInput
from model.ignorefile import MAX_LINE, names_for
from tests.support.mobyrows import SOURCE, STRING


def kept(ignore: str, *files: str) -> set[str]:
    """What a walk finds, each folder skipped that may be."""
    found: set[str] = set()

    def walk(folder: Folder, at: str) -> None:
        inside = {f[len(at) :].split("/")[0] for f in files if f.startswith(at)}
        for name in sorted(inside):
            path = at + name
            if path in files:
                if not folder.matches(name):
                    found.add(path)
                continue
            below = folder.enter(name)
            if not (below.matched and below.settled):
                walk(below, path + "/")

    walk(Ignore.parse(ignore.encode()).root, "")
    return found


def test_patterns_of_mobys_own_table_match_as_it_says() -> None:
    source = SOURCE.read_text()
    rows = [
        (*map(json.loads, row[:2]), row[2] == "true")
        for row in re.findall(rf"\{{{STRING}, {STRING}, (true|false)\}}", source)
    ]
    lists = [
        (json.loads(f"[{row[0]}]"), json.loads(row[1]), row[2] == "true")
        for row in re.findall(rf"\{{\[\]string\{{(.*?)\}}, {STRING}, (true|false)\}}", source)
    ]
    assert len(rows) >= 68 and len(lists) >= 4
    wrong = [
        (pattern, path)
        for pattern, path, expected in [*(([p], t, e) for p, t, e in rows), *lists]
        if Patterns(pattern).matches(path.rstrip("/") or "/") != expected
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("ignore", "files", "left"),
    [
        ("", "a b/c", "a b/c"),
        ("# a comment\na\n  \n#b", "a b", "b"),
        ("\ufeffa", "a", ""),
        ("a\r\nb\r\n", "a b c", "c"),
        ("  a  ", "a", ""),
        (r"\#a", "#a a", "a"),
        (r"\!a", "!a a", "a"),
        ("/a\n/b/", "a b/x c/a", "c/a"),
        ("./a/../b", "a b", "a"),
        ("../a\n..\n.", "a b", "a b"),
        ("*", "a .b c/d", ""),
        ("**", "a c/d", ""),
        ("*/x", "x a/x a/b/x", "x a/b/x"),
        ("**/x", "x a/x a/b/x y", "y"),
        ("a/**", "a/b a/c/d b", "b"),
        ("a?", "ab a abc", "a abc"),
        ("a[0-9]", "a1 ax", "ax"),
        ("a[^0-9]", "a1 ax", "a1"),
        ("[^.]*", ".a b c/d", ".a"),
        ("A", "a A", "a"),
        ("temp*", "temp1 temp/x atemp", "atemp"),
        ("*.md\n!README.md", "a.md README.md d/b.md", "README.md d/b.md"),
        ("*.md\n!README*.md\nREADME-secret.md", "README.md README-secret.md", "README.md"),
        ("*.md\nREADME-secret.md\n!README*.md", "README.md README-secret.md", "README.md README-secret.md"),
        ("*\n!d/keep", "x d/keep d/drop", "d/keep"),
        ("*\n! d/keep", "x d/keep d/drop", "d/keep"),
        ("d\n!d/e/keep", "d/x d/e/keep d/e/f", "d/e/keep"),
        ("**\n!**/*.c", "a.c d/b.c d/x", "a.c d/b.c"),
        ("*\n!d\nd/e\n!d/e/f", "d/a d/e/x d/e/f z", "d/a d/e/f"),
        ("Dockerfile\n.dockerignore", "Dockerfile .dockerignore a", "a"),
        ("d\n!d/x\nd", "d/x d/y", "d/x"),
        ("a**/b", "ab axx/b axx/y/b ac", "ac"),
        ("**b", "b ab c/ab bc", "bc"),
        ("**b*", "b ab c/bx bc", "ab"),
        ("a**", "a ab ab/c b", "b"),
        ("a[^x]c", "abc axc a/c", "axc"),
        ("a*[^x]c/d", "ab/c/d abc/d axc/d", "axc/d"),
    ],
)
def test_ignore_file_leaves_out_what_docker_does_b29_b30_b31(ignore: str, files: str, left: str) -> None:
    assert kept(ignore, *files.split()) == set(left.split())


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (b"a\n!", 2, "nothing after"),
        (b"# x\n\na[", 3, "never closed"),
        (b"[]a]", 1, "expected"),
        (b"[z-a]", 1, "empty range"),
        (b"a\\", 1, "backslash"),
        (b"a\n" + b"b" * (MAX_LINE + 1), 2, "longer"),
    ],
)
def test_ignore_file_that_is_wrong_is_refused_with_its_line(text: bytes, line: int, says: str) -> None:
    with pytest.raises(InvalidInput, match=rf"^\.dockerignore:{line}: .*{says}"):
        Ignore.parse(text)


def test_ignore_file_of_a_dockerfile_comes_before_the_common_one() -> None:
    assert names_for("deploy/prod.Dockerfile") == ("deploy/prod.Dockerfile.dockerignore", ".dockerignore")


@pytest.mark.parametrize("text", [b"a\0b", b"\xff\xfe*", b"*\xff"])
def test_ignore_file_with_strange_bytes_matches_names_with_the_same_b29(text: bytes) -> None:
    ignore = Ignore.parse(text)
    assert ignore.excludes(text.decode("utf-8", "surrogateescape").replace("*", "x"))
    assert not ignore.excludes("plain")


@pytest.mark.parametrize(
    "pattern",
    [
        "**/" * 50 + "x",
        "**/a" * 50,
        "a*" * 500 + "b",
        "*a" * 5000,
        "a**" * 50 + "b",
        "**a*[^b]" * 50 + "z",
        "?" * 60_000,
        "[a-z]" * 10_000,
    ],
)
def test_pattern_made_to_be_slow_is_not_b28(pattern: str) -> None:
    patterns = Patterns([pattern])
    started = time.process_time()
    for path in ("a" * 250 + "/" * 1 + "a" * 250, "/".join(["a"] * 1000), "/".join(["a" * 200] * 20)):
        patterns.matches(path)
    assert time.process_time() - started < 2.0


def test_ten_thousand_patterns_are_matched_in_linear_time_b28() -> None:
    text = "".join(f"**/*{n}.x\nplain{n}\nd{n}/*.y\n!**/q{n}\n" for n in range(2_500))
    started = time.process_time()
    ignore = Ignore.parse(text.encode())
    for n in range(100):
        ignore.excludes(f"d{n}/e/f/name{n}.x")
    assert time.process_time() - started < 5.0


def test_folder_that_nothing_can_take_back_is_skipped_whole() -> None:
    root = Ignore.parse(b"node_modules\n*\n!src/**/*.py\n!docs").root
    skipped = root.enter("node_modules")
    assert skipped.matched and skipped.settled
    sources = root.enter("src")
    assert sources.matched and not sources.settled
    assert not sources.enter("a").settled
    docs = root.enter("docs")
    assert not docs.matched and docs.settled
