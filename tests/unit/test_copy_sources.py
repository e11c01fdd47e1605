"""Which files the sources of a COPY mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from image.build.places import MAX_LINKS, Item, parts_of
from image.build.select import picked, with_parents
from model.errors import InvalidInput, NotFound


class FakeFolder:
    """Of nested dicts: bytes are a file, text is a link. Counts what is open."""

    fd = -1

    def __init__(self, files: Mapping[Any, Any], counter: list[int] | None = None) -> None:
        self._files = {name.encode() if isinstance(name, str) else name: files[name] for name in files}
        self.counter = counter if counter is not None else [0]

    def itself(self) -> Item:
        return Item("dir", key="of the top")

    def names(self) -> Sequence[bytes]:
        return sorted(self._files)

    def item(self, name: bytes) -> Item | None:
        found = self._files.get(name)
        if found is None:
            return None
        if isinstance(found, dict):
            return Item("dir")
        return Item("link", target=found.encode()) if isinstance(found, str) else Item("file")

    def enter(self, name: bytes) -> FakeFolder:
        self.counter[0] += 1
        return FakeFolder(self._files[name], self.counter)

    def open(self, name: bytes) -> int:
        raise AssertionError(name)

    def xattrs(self, name: bytes, fd: int) -> Mapping[str, bytes]:
        return {}

    def close(self) -> None:
        self.counter[0] -= 1


FILES = {
    "a.txt": b"",
    "b.txt": b"",
    "c.md": b"",
    "l": "a.txt",
    "up": "../../../../a.txt",
    "abs": "/d/e/x.go",
    "broken": "nothing",
    "o-loop": "o-loop",
    "ring": {"a": "b", "b": "a"},
    "to-d": "d",
    "d": {"e": {"x.go": b"", "y.go": b"", "back": "../../b.txt"}, "f": {"x.go": b""}, "z": b"", "q": "e"},
    "arr[0].txt": b"",
    "-rf": b"",
    "new\nline": b"",
    b"\xff\xfe": b"",
}


def names(source: str) -> list[str]:
    """What is picked: its way without links, and the name it is written under."""
    top = FakeFolder(FILES)
    found = picked(top, source)
    assert top.counter == [0]
    return [
        f"{b'/'.join(one.parts).decode(errors='replace')} as {one.name.decode(errors='replace')}"
        for one in found
    ]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a.txt", ["a.txt as a.txt"]),
        ("/a.txt", ["a.txt as a.txt"]),
        ("./a.txt", ["a.txt as a.txt"]),
        ("a.txt/", ["a.txt as a.txt"]),
        ("../../a.txt", ["a.txt as a.txt"]),
        ("d/../a.txt", ["a.txt as a.txt"]),
        ("d/../../../d/z", ["d/z as z"]),
        (".", [" as "]),
        ("/", [" as "]),
        ("d/..", [" as "]),
        ("d", ["d as d"]),
        ("d/.", ["d as d"]),
        ("*.txt", ["a.txt as a.txt", "arr[0].txt as arr[0].txt", "b.txt as b.txt"]),
        ("?.*", ["a.txt as a.txt", "b.txt as b.txt", "c.md as c.md"]),
        ("d/*/x.go", ["d/e/x.go as x.go", "d/f/x.go as x.go"]),
        ("d/e*", ["d/e as e"]),
        ("*/z", ["d/z as z"]),
        ("nothing*", []),
        ("arr[[]0].txt", ["arr[0].txt as arr[0].txt"]),
        ("l", ["a.txt as l"]),
        ("up", ["a.txt as up"]),
        ("abs", ["d/e/x.go as abs"]),
        ("to-d/z", ["d/z as z"]),
        ("to-d", ["d as to-d"]),
        ("to-d/*", ["d/e as e", "d/f as f", "d/e as q", "d/z as z"]),
        ("d/q/back", ["b.txt as back"]),
        ("l*", ["a.txt as l"]),
        ("-rf", ["-rf as -rf"]),
        ("new\nline", ["new\nline as new\nline"]),
    ],
)
def test_source_means_the_files_that_docker_takes(source: str, expected: list[str]) -> None:
    """B11, B34."""
    assert names(source) == expected


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing", "missing is not there"),
        ("a.tx", "a.txt is. "),
        ("d/e/w.go", "x.go is. |y.go is. "),
        ("broken", "broken is not there"),
        ("a.txt/x", "a.txt is no directory"),
        ("nodir/*.txt", "nodir/\\*.txt is not there"),
        ("a.txt/*", "a.txt is no directory"),
        ("broken*", "broken\\* is not there"),
    ],
)
def test_source_that_is_not_there_is_named(source: str, message: str) -> None:
    with pytest.raises(NotFound, match=message):
        names(source)


@pytest.mark.parametrize("source", ["o-loop", "ring/a", "o-loop/x", "o-*"])
def test_links_in_a_circle_are_refused(source: str) -> None:
    """B34."""
    with pytest.raises(InvalidInput, match="circle"):
        names(source)


def test_chain_of_many_links_costs_no_more_than_its_limit() -> None:
    chain = {f"l{n}": f"l{n + 1}" for n in range(MAX_LINKS + 5)} | {f"l{MAX_LINKS + 5}": b""}
    top = FakeFolder(chain)
    assert picked(top, "l10")[0].parts == (f"l{MAX_LINKS + 5}".encode(),)
    with pytest.raises(InvalidInput, match="circle"):
        picked(top, "l0")


def test_name_that_is_no_text_is_found_by_a_wildcard() -> None:
    found = picked(FakeFolder(FILES), "??")
    assert b"\xff\xfe" in [one.name for one in found]


@pytest.mark.parametrize(
    ("source", "start", "matches", "not_matches"),
    [
        ("d/e/x.go", "", ["d/e/x.go"], ["d/e/y.go", "x.go"]),
        ("./d/./e/x.go", "d", ["e/x.go"], ["d/e/x.go"]),
        ("d/./e", "d", ["e", "e/x.go"], ["f"]),
        ("d/**/x.go", "", ["d/e/x.go", "d/f/x.go"], ["d/e/y.go"]),
        ("/d/e/.", "", ["d/e", "d/e/x.go"], ["d/f"]),
        ("d/./../../e", "d", ["e"], ["f"]),
    ],
)
def test_parents_are_kept_from_the_pivot_on(
    source: str, start: str, matches: list[str], not_matches: list[str]
) -> None:
    (one,) = with_parents(FakeFolder(FILES), source)
    assert b"/".join(one.parts).decode() == start and one.only is not None
    assert all(map(one.only.matches, matches)) and not any(map(one.only.matches, not_matches))
    assert bool(one.required) == ("*" not in source)


def test_parents_of_everything_is_everything() -> None:
    (one,) = with_parents(FakeFolder(FILES), ".")
    assert one.only is None and one.parts == ()


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("/a//b/./c", [b"a", b"b", b"c"]),
        ("../../x", [b"x"]),
        ("a/../../..", []),
        ("", []),
        ("a/..//b/", [b"b"]),
    ],
)
def test_path_is_cleaned_as_if_it_began_at_the_top(path: str, parts: list[bytes]) -> None:
    assert parts_of(path.encode()) == parts
