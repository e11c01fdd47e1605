"""`flota cp`: docker's rules of which end is whose and what a copy is called."""

from __future__ import annotations

import pytest

from cli.parse.copies import Argument, End, Plan, argument, plan, renamed, split
from model.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("box:/etc", Argument("box", "/etc")),
        ("box:etc", Argument("box", "etc")),
        ("box:", Argument("box", "/")),
        ("box:/a:b", Argument("box", "/a:b")),
        ("/abs:olute", Argument("", "/abs:olute")),
        ("./rel:ative", Argument("", "./rel:ative")),
        ("../up:1", Argument("", "../up:1")),
        ("plain", Argument("", "plain")),
        ("-", Argument("", "-")),
    ],
)
def test_argument_says_whose_path_it_is(text: str, expected: Argument) -> None:
    assert argument(text) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a/b", ("/a", "b")),
        ("/a/b/", ("/a", "b")),
        ("/a/b/.", ("/a/b", ".")),
        ("a", (".", "a")),
        (".", (".", ".")),
        ("/", ("/", "/")),
        ("/a", ("/", "a")),
    ],
)
def test_path_is_split_as_docker_splits_it(path: str, expected: tuple[str, str]) -> None:
    assert split(path) == expected


FILE, FOLDER = End("/s/file", True, False), End("/s/folder", True, True)
INSIDE = End("/s/folder/.", True, True)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (FILE, End("/t", True, True), Plan("/t")),
        (FILE, End("/t/x", True, False), Plan("/t", "file", "x")),
        (FILE, End("/t/x", False, False), Plan("/t", "file", "x")),
        (FOLDER, End("/t", True, True), Plan("/t")),
        (FOLDER, End("/t/new", False, False), Plan("/t", "folder", "new")),
        (FOLDER, End("/t/new/", False, False), Plan("/t", "folder", "new")),
        (INSIDE, End("/t", True, True), Plan("/t")),
        (INSIDE, End("/t/new", False, False), Plan("/t", ".", "new")),
    ],
)
def test_copy_is_named_as_docker_names_it(source: End, target: End, expected: Plan) -> None:
    assert plan(source, target) == expected


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        (FOLDER, End("/t/x", True, False), "cannot copy directory"),
        (FILE, End("/t/x/", False, False), "no such directory"),
        (FILE, End("/t/x/.", False, False), "no such directory"),
    ],
)
def test_copy_that_makes_no_sense_is_refused_in_dockers_words(source: End, target: End, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        plan(source, target)


@pytest.mark.parametrize(
    ("name", "wish", "expected"),
    [
        ("folder/a", Plan("/t", "folder", "new"), "new/a"),
        ("folder", Plan("/t", "folder", "new"), "new"),
        ("./", Plan("/t", ".", "new"), "new"),
        ("./a", Plan("/t", ".", "new"), "new/a"),
        ("a/b", Plan("/t", ".", "new"), "new/a/b"),
        ("folder/folder", Plan("/t", "folder", "new"), "new/folder"),
        ("folderlike", Plan("/t", "folder", "new"), "folderlike"),
        ("./a", Plan("/t"), "a"),
        ("./", Plan("/t"), ""),
    ],
)
def test_members_are_renamed_by_their_topmost_part(name: str, wish: Plan, expected: str) -> None:
    assert renamed(name, wish) == expected
