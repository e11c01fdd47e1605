"""COPY and WORKDIR into real roots: names, attributes, links, what stands there already."""

from __future__ import annotations

import os
import stat
from typing import Any

import pytest

from model.errors import InvalidInput, NotFound
from tests.support.copies import CONTEXT, CopyPlace, Link, fill
from tests.support.wildtrees import CAPABILITY

pytestmark = pytest.mark.kernel


@pytest.fixture
def filled(copies: CopyPlace) -> CopyPlace:
    copies.has(copies.context, CONTEXT)
    return copies


TABLE: list[tuple[tuple[str, ...], str, dict[str, Any], dict[str, str]]] = [
    (("a.txt",), "/new", {}, {"new": "f 0644 0:0 aaa"}),
    (("a.txt",), "/new/", {}, {"new": "d 0755 0:0", "new/a.txt": "f 0644 0:0 aaa"}),
    (("a.txt",), "/", {}, {"a.txt": "f 0644 0:0 aaa"}),
    (("a.txt",), "/p/q/n", {}, {"p": "d 0755 0:0", "p/q": "d 0755 0:0", "p/q/n": "f 0644 0:0 aaa"}),
    (("a.txt",), "/p/../n", {}, {"n": "f 0644 0:0 aaa"}),
    (("a.txt",), "/../../n", {}, {"n": "f 0644 0:0 aaa"}),
    (("run",), "/run", {}, {"run": "f 4755 0:0 #!"}),
    (("link",), "/", {}, {"link": "f 0644 0:0 aaa"}),
    (("a.txt", "b.txt"), "/two/", {}, {
        "two": "d 0755 0:0", "two/a.txt": "f 0644 0:0 aaa", "two/b.txt": "f 0600 0:0 bbb"}),
    (("?.txt",), "/two/", {}, {
        "two": "d 0755 0:0", "two/a.txt": "f 0644 0:0 aaa", "two/b.txt": "f 0600 0:0 bbb"}),
    (("a*.txt",), "/one", {}, {"one": "f 0644 0:0 aaa"}),
    (("a.txt", "nothing*"), "/x/", {}, {"x": "d 0755 0:0", "x/a.txt": "f 0644 0:0 aaa"}),
    (("nothing*",), "/x/", {}, {}),
    (("empty",), "/e", {}, {"e": "d 0755 0:0"}),
    (("sub",), "/s", {}, {
        "s": "d 0755 0:0", "s/x": "f 0644 0:0 xxx", "s/inner": "d 0755 0:0", "s/inner/y": "f 0400 0:0 yyy",
        "s/away": "l 0:0 /etc/passwd"}),
    (("sub/", "a.txt"), "/s/", {}, {
        "s": "d 0755 0:0", "s/x": "f 0644 0:0 xxx", "s/inner": "d 0755 0:0", "s/inner/y": "f 0400 0:0 yyy",
        "s/away": "l 0:0 /etc/passwd", "s/a.txt": "f 0644 0:0 aaa"}),
    (("s*",), "/s/", {}, {
        "s": "d 0755 0:0", "s/x": "f 0644 0:0 xxx", "s/inner": "d 0755 0:0", "s/inner/y": "f 0400 0:0 yyy",
        "s/away": "l 0:0 /etc/passwd"}),
    (("sub",), "/s", {"owner": "7:8", "mode": "700"}, {
        "s": "d 0700 7:8", "s/x": "f 0700 7:8 xxx", "s/inner": "d 0700 7:8", "s/inner/y": "f 0700 7:8 yyy",
        "s/away": "l 7:8 /etc/passwd"}),
    (("a.txt",), "/p/n", {"owner": "7", "mode": "u=rwX,go="}, {"p": "d 0755 7:7", "p/n": "f 0600 7:7 aaa"}),
    (("sub",), "/s", {"exclude": ("inner", "a*")}, {"s": "d 0755 0:0", "s/x": "f 0644 0:0 xxx"}),
    (("sub",), "/s", {"exclude": ("**", "!inner/y")}, {
        "s": "d 0755 0:0", "s/inner": "d 0755 0:0", "s/inner/y": "f 0400 0:0 yyy"}),
    (("?.txt",), "/", {"exclude": ("b.*",)}, {"a.txt": "f 0644 0:0 aaa"}),
    (("sub/inner/y", "a.txt"), "/o/", {"parents": True}, {
        "o": "d 0755 0:0", "o/sub": "d 0750 0:0", "o/sub/inner": "d 0755 0:0",
        "o/sub/inner/y": "f 0400 0:0 yyy", "o/a.txt": "f 0644 0:0 aaa"}),
    (("./sub/./inner/y",), "/o/", {"parents": True}, {
        "o": "d 0755 0:0", "o/inner": "d 0755 0:0", "o/inner/y": "f 0400 0:0 yyy"}),
    (("**/y",), "/o/", {"parents": True}, {
        "o": "d 0755 0:0", "o/sub": "d 0750 0:0", "o/sub/inner": "d 0755 0:0",
        "o/sub/inner/y": "f 0400 0:0 yyy"}),
    (("sub/./no*",), "/o/", {"parents": True}, {"o": "d 0755 0:0"}),
]  # fmt: skip


@pytest.mark.parametrize(("sources", "target", "fields", "expected"), TABLE)
async def test_copy_into_an_empty_root_makes_what_docker_makes(
    filled: CopyPlace,
    sources: tuple[str, ...],
    target: str,
    fields: dict[str, Any],
    expected: dict[str, str],
) -> None:
    await filled.copy(*sources, target=target, **fields)
    assert filled.seen() == expected


@pytest.mark.parametrize(("sources", "target", "fields", "expected"), TABLE)
async def test_copy_from_a_root_makes_the_same(
    filled: CopyPlace,
    sources: tuple[str, ...],
    target: str,
    fields: dict[str, Any],
    expected: dict[str, str],
) -> None:
    filled.has(filled.stage, CONTEXT)
    await filled.copy(*sources, target=target, place=filled.of_stage(), **fields)
    assert filled.seen() == expected


async def test_copy_from_a_stage_keeps_owners_modes_links_and_what_lies_beside_files(
    copies: CopyPlace,
) -> None:
    copies.has(copies.stage, {"d/f": "f", "d/e/g": "g"})
    os.chown(copies.stage / "d/f", 100, 200)
    os.chown(copies.stage / "d/e", 101, 201)
    os.chmod(copies.stage / "d/e", 0o3770)
    os.link(copies.stage / "d/f", copies.stage / "d/twin")
    os.mkfifo(copies.stage / "d/fifo", 0o640)
    os.mknod(copies.stage / "d/dev", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.chmod(copies.stage / "d/dev", 0o666)
    os.setxattr(copies.stage / "d/f", "user.note", b"n")
    os.setxattr(copies.stage / "d/f", "security.capability", CAPABILITY)
    os.utime(copies.stage / "d/f", ns=(5, 1_234_567_890_123_456_789))
    os.utime(copies.stage / "d/e", ns=(5, 987_654_321))
    await copies.copy("/d", target="/t", place=copies.of_stage())
    seen = copies.seen(copies.root / "t")
    assert seen == {
        "f": "f 0644 100:200 f",
        "twin": "f 0644 100:200 f",
        "e": "d 3770 101:201",
        "e/g": "f 0644 0:0 g",
        "fifo": "p 0640 0:0",
        "dev": "? 0666 0:0",
    }
    made = copies.root / "t"
    assert os.stat(made / "f").st_ino == os.stat(made / "twin").st_ino
    assert os.stat(made / "dev").st_rdev == os.makedev(1, 3)
    assert os.getxattr(made / "f", "user.note") == b"n"
    assert os.getxattr(made / "f", "security.capability") == CAPABILITY
    assert os.stat(made / "f").st_mtime_ns == 1_234_567_890_123_456_789
    assert os.stat(made / "e").st_mtime_ns == 987_654_321
    assert os.stat(made).st_mtime_ns == os.stat(copies.stage / "d").st_mtime_ns


async def test_socket_of_a_stage_becomes_an_empty_file_as_docker_s(copies: CopyPlace) -> None:
    os.mknod(copies.stage / "s", stat.S_IFSOCK | 0o600)
    await copies.copy("s", target="/s", place=copies.of_stage())
    assert copies.seen() == {"s": "f 0600 0:0 "}


async def test_files_of_a_context_keep_modes_and_times_and_are_root_s(filled: CopyPlace) -> None:
    path = filled.context / "a.txt"
    os.utime(path, ns=(5, 1_500_000_000_000_000_001))
    os.setxattr(path, "security.capability", CAPABILITY)
    os.mkfifo(filled.context / "fifo", 0o604)
    await filled.copy(".", target="/")
    assert os.stat(filled.root / "a.txt").st_mtime_ns == 1_500_000_000_000_000_001
    assert "security.capability" not in os.listxattr(filled.root / "a.txt")
    assert filled.seen()["fifo"] == "p 0604 0:0"
    assert filled.seen()["sub"] == "d 0750 0:0"


# -- what stands there ----------------------------------------------------------------------------------
async def test_directories_are_merged_and_files_replaced(filled: CopyPlace) -> None:
    fill(filled.root / "s/inner/old", "old")
    fill(filled.root / "s/x", ("before", 0o777))
    os.chown(filled.root / "s", 500, 600)
    os.chmod(filled.root / "s", 0o701)
    os.chown(filled.root / "s/inner", 501, 601)
    await filled.copy("sub", target="/s")
    assert filled.seen() == {
        "s": "d 0701 500:600",
        "s/x": "f 0644 0:0 xxx",
        "s/inner": "d 0755 0:0",
        "s/inner/old": "f 0644 0:0 old",
        "s/inner/y": "f 0400 0:0 yyy",
        "s/away": "l 0:0 /etc/passwd",
    }


async def test_file_goes_into_the_directory_that_stands_there(filled: CopyPlace) -> None:
    fill(filled.root / "app", None)
    await filled.copy("a.txt", "b.txt", target="/app")
    assert sorted(os.listdir(filled.root / "app")) == ["a.txt", "b.txt"]


@pytest.mark.parametrize(
    ("there", "sources", "target"),
    [
        ({"t/a.txt/x": ""}, ("a.txt",), "/t/"),
        ({"t": "file"}, ("sub",), "/t"),
        ({"t": "file"}, ("sub",), "/t/"),
        ({"t": "file"}, ("a.txt",), "/t/"),
        ({"t": "file"}, ("a.txt",), "/t/deep/er"),
        ({"s/inner": "file"}, ("sub",), "/s"),
        ({"s/inner": Link("elsewhere"), "s/elsewhere": None}, ("sub",), "/s"),
        ({"s/x/y": "file"}, ("sub",), "/s"),
        ({"t": Link("t")}, ("a.txt",), "/t"),
        ({}, ("a.txt", "b.txt"), "/t"),
        ({}, ("*.txt",), "/t"),
    ],
)
async def test_kind_never_takes_the_place_of_another(
    filled: CopyPlace, there: dict[str, Any], sources: tuple[str, ...], target: str
) -> None:
    filled.has(filled.root, there)
    with pytest.raises(InvalidInput) as caught:
        await filled.copy(*sources, target=target)
    assert "\n" not in str(caught.value)


async def test_links_on_the_way_to_the_target_are_followed_inside_the_root(filled: CopyPlace) -> None:
    """B11: the target is behind links to `/`, to the victim outside, and in a circle of directories."""
    filled.has(
        filled.root,
        {
            "top": Link("/"),
            "abs": Link(str(filled.victim)),
            "rel": Link("../../../../victim"),
            "usr/lib": None,
            "lib": Link("usr/lib"),
            "file": Link("usr/target"),
        },
    )
    await filled.copy("a.txt", target="/top/one")
    await filled.copy("a.txt", target="/abs/two")
    await filled.copy("a.txt", target="/rel/three")
    await filled.copy("a.txt", target="/lib/")
    await filled.copy("a.txt", target="/file")
    await filled.copy("sub", target="/lib")
    seen = filled.seen()
    inside = str(filled.victim).lstrip("/")
    for path in ("one", f"{inside}/two", "victim/three", "usr/lib/a.txt", "usr/target", "usr/lib/x"):
        assert seen[path].endswith(("aaa", "xxx")), path
    assert seen["file"] == "l 0:0 usr/target" and seen["lib"] == "l 0:0 usr/lib"


async def test_link_where_a_file_goes_by_its_own_name_is_replaced(filled: CopyPlace) -> None:
    filled.has(filled.root, {"t/a.txt": Link(str(filled.victim / "file")), "t/x": Link("/t/a.txt")})
    await filled.copy("a.txt", target="/t/")
    await filled.copy("sub", target="/t")
    assert filled.seen()["t/a.txt"] == "f 0644 0:0 aaa" and filled.seen()["t/x"] == "f 0644 0:0 xxx"


# -- owners and times -----------------------------------------------------------------------------------
async def test_owner_by_name_is_that_of_the_root(filled: CopyPlace) -> None:
    filled.has(
        filled.root,
        {"etc/real": "app:x:1000:1001::/:\n", "etc/passwd": Link("/etc/real"), "etc/group": "web:x:33:\n"},
    )
    await filled.copy("a.txt", target="/1", owner="app")
    await filled.copy("a.txt", target="/2", owner="app:web")
    assert filled.seen()["1"] == "f 0644 1000:1001 aaa" and filled.seen()["2"] == "f 0644 1000:33 aaa"
    with pytest.raises(NotFound, match="no user 'nobody' in /etc/passwd of this stage"):
        await filled.copy("a.txt", target="/3", owner="nobody")


@pytest.mark.parametrize("kind", ["victim", "fifo", "folder", "device"])
async def test_owner_file_that_is_none_is_not_read(filled: CopyPlace, kind: str) -> None:
    """B13: a passwd that leads out, would block, or never ends."""
    path = filled.root / "etc/passwd"
    fill(filled.root / "etc", None)
    if kind == "victim":
        (filled.victim / "file").write_text("app:x:0:0::/:\n")
        filled._before = filled.census()
        path.symlink_to(filled.victim / "file")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    with pytest.raises(NotFound, match="no /etc/passwd"):
        await filled.copy("a.txt", target="/x", owner="app")


async def test_mode_and_owner_that_can_not_be_are_refused_before_anything_is_done(filled: CopyPlace) -> None:
    """B12."""
    wrong: tuple[dict[str, Any], ...] = (
        {"owner": "4294967296"},
        {"owner": "a:b:c"},
        {"mode": "99999"},
        {"mode": "rw"},
    )
    for fields in wrong:
        with pytest.raises(InvalidInput):
            await filled.choose("a.txt", **fields)
