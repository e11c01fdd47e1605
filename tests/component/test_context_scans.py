"""What a client remembers of its files: unchanged ones are not read again, changed ones always are."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from image.context import scancache
from image.context.scan import Scan, Scanner
from image.dockerfile.ignore import Ignore
from model.contexttree import decode
from model.errors import Exhausted
from tests.support.contexts import grow
from tests.support.waiting import wait_until

FILES: dict[str, bytes | str | None] = {
    "a": b"a" * 10,
    "sub/b": b"b" * 10,
    "sub/deep/c": b"c",
    "other/d": b"d",
    "link": "a",
}


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return grow(tmp_path / "top", FILES)


@pytest.fixture
def cache(tmp_path: Path) -> str:
    return os.fspath(tmp_path / "cache")


def scanner(top: Path, cache: str) -> Scanner:
    return Scanner(os.fspath(top), cache=cache)


def settled(top: Path, cache: str) -> str:
    """The root once nothing of it is too young to be remembered."""

    def root() -> str:
        found = scanner(top, cache).scan()
        return "" if scanner(top, cache).scan().read else found.root

    return wait_until(root, deadline=20)


def test_unchanged_folder_is_known_without_reading(top: Path, cache: str) -> None:
    first = scanner(top, cache).scan()
    assert first.read == 5 and settled(top, cache) == first.root
    before = os.stat(next(Path(cache).iterdir())).st_mtime_ns
    again = scanner(top, cache).scan()
    assert (again.root, again.read, again.files, again.size) == (first.root, 0, 8, 22)
    assert os.stat(next(Path(cache).iterdir())).st_mtime_ns == before, "nothing new is not written"


def replaced(top: Path) -> None:
    (top / "new").write_bytes(b"A" * 10)
    os.utime(top / "new", ns=(os.stat(top / "a").st_atime_ns, os.stat(top / "a").st_mtime_ns))
    os.rename(top / "new", top / "a")


def rewritten(top: Path) -> None:
    times = os.stat(top / "a")
    (top / "a").write_bytes(b"A" * 10)
    os.utime(top / "a", ns=(times.st_atime_ns, times.st_mtime_ns))


def relinked(top: Path) -> None:
    (top / "link").unlink()
    (top / "link").symlink_to("b")


def made_folder(top: Path) -> None:
    (top / "other/d").unlink()
    (top / "other/d").mkdir()


CHANGES: dict[str, tuple[Callable[[Path], object], int]] = {
    "content": (lambda top: (top / "sub/b").write_bytes(b"B" * 10), 1),
    "content-with-old-times": (rewritten, 1),
    "another-file-with-old-times": (replaced, 1),
    "mode": (lambda top: (top / "a").chmod(0o700), 1),
    "mode-of-folder": (lambda top: (top / "sub").chmod(0o700), 0),
    "link": (relinked, 1),
    "new": (lambda top: (top / "sub/new").write_bytes(b"n"), 1),
    "gone": (lambda top: (top / "other/d").unlink(), 0),
    "renamed": (lambda top: (top / "a").rename(top / "z"), 1),
    "folder-for-file": (made_folder, 0),
    "moved-folder": (lambda top: (top / "sub").rename(top / "sub2"), 2),
}


@pytest.mark.parametrize(("change", "read"), CHANGES.values(), ids=CHANGES)
def test_changed_folder_is_as_if_it_had_never_been_known(
    change: Callable[[Path], object], read: int, top: Path, cache: str
) -> None:
    before = settled(top, cache)
    change(top)
    found = scanner(top, cache).scan()
    assert found.root != before and found.read == read
    assert found.root == Scanner(os.fspath(top)).scan().root


def test_change_in_the_same_tick_is_seen(top: Path, cache: str) -> None:
    for number in range(200):
        (top / "a").write_bytes(b"%010d" % number)
        assert scanner(top, cache).scan().root == Scanner(os.fspath(top)).scan().root, number


@pytest.mark.parametrize("number", range(8))
def test_damaged_cache_is_as_good_as_none(number: int, top: Path, cache: str) -> None:
    root = settled(top, cache)
    path = next(Path(cache).iterdir())
    data = path.read_bytes()
    other = data[:-1] + bytes([data[-1] ^ 1])
    body = zlib.crc32(b"\x92\x01\x80").to_bytes(4, "big") + b"\x92\x63\x80"
    version = zlib.crc32(b"\x92\x63\x80").to_bytes(4, "big") + b"\x92\x63\x80"
    tree = zlib.crc32(b"junk").to_bytes(4, "big") + b"junk"
    cases = [b"", data[:3], data[: len(data) // 2], other, body, version, tree, b"\0" * 100]
    path.write_bytes(cases[number])
    found = scanner(top, cache).scan()
    assert found.root == root and found.read == 5


def test_cache_of_somebody_else_or_through_a_link_is_not_read(top: Path, cache: str, tmp_path: Path) -> None:
    settled(top, cache)
    path = next(Path(cache).iterdir())
    os.rename(path, tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    assert scancache.load(cache, os.fsencode(os.path.realpath(top))) == {}
    assert scanner(top, cache).scan().read == 5 and not path.is_symlink()


def test_cache_folder_that_cannot_be_written_costs_time_alone(top: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    one = scanner(top, os.fspath(tmp_path / "file/cache"))
    assert one.scan().root == one.scan().root == Scanner(os.fspath(top)).scan().root


def test_caches_of_many_contexts_stay_few(tmp_path: Path, cache: str) -> None:
    for number in range(scancache.MAX_CONTEXTS + 5):
        scanner(grow(tmp_path / f"top{number}", {"a": b"a"}), cache).scan()
    assert len(os.listdir(cache)) == scancache.MAX_CONTEXTS
    assert not [name for name in os.listdir(cache) if name.startswith(".new")]


def test_wishes_by_turns_forget_nothing(top: Path, cache: str) -> None:
    settled(top, cache)
    one = scanner(top, cache)
    for _ in range(3):
        assert [one.scan(paths).read for paths in ((), ("a",), ("sub/*", "link"), ("other",))] == [0] * 4
    fresh = scanner(top, cache)
    assert [fresh.scan(paths).read for paths in (("link",), ("a",), ())] == [0, 0, 0]


def test_two_wishes_for_the_same_files_are_the_same_tree(top: Path, cache: str) -> None:
    one = scanner(top, cache)
    assert (
        one.scan(("sub",)).root == one.scan(("sub/", "./sub/../sub")).root == one.scan(("/sub", "s*b")).root
    )
    assert one.scan(("sub",)).root != one.scan(("sub/deep",)).root


def test_context_of_too_many_files_is_refused_with_what_to_do_b35(top: Path, tmp_path: Path) -> None:
    assert Scanner(os.fspath(top), most=8).scan().files == 8
    with pytest.raises(Exhausted, match=r"more than 7 files\. Leave out .*\.dockerignore"):
        Scanner(os.fspath(top), most=7).scan()
    ignore = Ignore.parse(b"sub\n")
    assert Scanner(os.fspath(top), most=7, ignore=ignore).scan().files == 4


# -- hard links ------------------------------------------------------------------------------------------
def groups(scan: Scan, tree: str = "", path: str = "") -> dict[str, int]:
    """Numbers of files with several names, by path."""
    data = scan.tree(tree or scan.root)
    assert data is not None
    found: dict[str, int] = {}
    for entry in decode(data).entries:
        name = path + os.fsdecode(entry.name)
        if entry.kind == "tree":
            found |= groups(scan, entry.digest, name + "/")
        elif entry.group:
            found[name] = entry.group
    return found


def test_names_of_one_file_stay_together_and_others_of_its_content_apart(top: Path, cache: str) -> None:
    (top / "twin").write_bytes(b"a" * 10)
    os.link(top / "a", top / "sub/deep/a")
    os.link(top / "twin", top / "other/twin")
    (top / "alone").write_bytes(b"a" * 10)
    expected = {"a": 1, "sub/deep/a": 1, "other/twin": 2, "twin": 2}
    assert groups(scanner(top, cache).scan()) == expected
    root = settled(top, cache)
    again = scanner(top, cache).scan()
    assert (again.root, again.read, groups(again)) == (root, 0, expected)


def test_name_of_a_file_whose_others_are_not_in_the_context_is_alone(
    top: Path, tmp_path: Path, cache: str
) -> None:
    os.link(top / "a", tmp_path / "outside")
    os.link(top / "sub/b", top / "other/b")
    without = Scanner(os.fspath(top), cache=cache, ignore=Ignore.parse(b"other/b"))
    assert groups(without.scan()) == {}
    assert groups(scanner(top, cache).scan(["sub", "link"])) == {}


@pytest.mark.parametrize("known", [True, False], ids=["known", "cold"])
def test_names_of_one_file_change_with_the_rules_though_no_file_did(
    top: Path, cache: str, known: bool
) -> None:
    os.link(top / "a", top / "sub/deep/a")
    settled(top, cache)
    rules = Ignore.parse(b"sub/deep/a")
    folder = cache if known else ""
    assert groups(Scanner(os.fspath(top), cache=folder, ignore=rules).scan()) == {}
    found = scanner(top, folder).scan()
    assert groups(found) == {"a": 1, "sub/deep/a": 1}
    assert groups(scanner(top, folder).scan(["a", "other"])) == {}
    assert scanner(top, folder).scan().root == found.root


def test_unlinked_name_is_a_file_of_its_own(top: Path, cache: str) -> None:
    os.link(top / "a", top / "b")
    settled(top, cache)
    content = (top / "b").read_bytes()
    (top / "b").unlink()
    (top / "b").write_bytes(content)
    assert groups(scanner(top, cache).scan()) == {}
