"""COPY from and into roots of an enemy: nothing outside is read, made or changed; a refusal is one line.

What is outside, the fixture looks at.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from image.build.base import RootSource, TreeSource
from model.contexttree import Entry, Tree, digest_of, encode
from model.errors import Damaged, FlotaError, InvalidInput, NotFound
from tests.support.copies import CopyPlace, Link

pytestmark = pytest.mark.kernel


@pytest.fixture
def evil(copies: CopyPlace) -> CopyPlace:
    """A stage, a context and a root full of links to the victim beside them."""
    victim = str(copies.victim)
    links: dict[str, Any] = {
        "top": Link("/"),
        "abs": Link(victim),
        "up": Link("../" * 30 + victim[1:]),
        "file": Link(victim + "/file"),
        "d/inner": Link(victim),
        "d/hello": Link(victim + "/hello"),
        "self": Link("/proc/self/root"),
        "cwd": Link("/proc/self/cwd"),
        "fd": Link("/proc/self/fd/3"),
    }
    for folder in (copies.stage, copies.context, copies.root):
        copies.has(folder, links)
    return copies


@pytest.mark.parametrize(
    "source",
    ["abs", "abs/file", "abs/*", "up", "up/file", "file", "d/inner/file", "d/hello", "self", "cwd", "fd",
     "*/file", "self/../../../../../etc/passwd", "../victim/file", "/../victim/hello", "top/abs/file"],
)  # fmt: skip
async def test_source_behind_a_link_to_the_host_is_not_there(evil: CopyPlace, source: str) -> None:
    """B11; CVE-2024-1753, where a stage's link to `/` showed the host."""
    for place in (evil.of_stage(), evil.of_context()):
        for fields in ({}, {"parents": True}, {"add": True}):
            try:
                await evil.copy(source, target="/taken/", place=place, **fields)
            except NotFound as error:
                assert "\n" not in str(error)
            assert not [
                path for path in (evil.root / "taken").rglob("*") if path.is_file() and not path.is_symlink()
            ]


async def test_source_that_is_a_link_to_its_top_is_its_own_top(evil: CopyPlace) -> None:
    for place in (evil.of_stage(), evil.of_context()):
        await evil.copy("top", target="/all", place=place)
        assert sorted(os.listdir(evil.root / "all")) == sorted(os.listdir(evil.stage))
        assert os.readlink(evil.root / "all/abs") == str(evil.victim)


@pytest.mark.parametrize(
    "target", ["/abs", "/abs/", "/abs/x", "/up/", "/d/inner/", "/file", "/top/abs/x", "/self/x"]
)
async def test_target_behind_a_link_to_the_host_is_in_the_root(evil: CopyPlace, target: str) -> None:
    """B11."""
    (evil.context / "mine").write_text("mine")
    for fields in ({}, {"owner": "5:5"}, {"link": True}):
        try:
            await evil.copy("mine", "d", target=target + ("" if target.endswith("/") else "/"), **fields)
            await evil.copy("mine", target=target, **fields)
        except InvalidInput as error:
            assert "\n" not in str(error)
    assert list(evil.root.rglob("mine"))


async def test_root_that_is_a_link_itself_is_refused(copies: CopyPlace) -> None:
    link = copies.base / "link"
    link.symlink_to(copies.victim)
    with pytest.raises(FlotaError):
        await copies.copy("file", target="/", place=RootSource(path=str(link)))


async def test_hard_links_of_a_stage_reach_nothing_else(copies: CopyPlace) -> None:
    """B34. A link that the stage has to a file that is in another stage too stays a copy of its own."""
    copies.has(copies.stage, {"d/a": "a"})
    for name in ("b", "c"):
        os.link(copies.stage / "d/a", copies.stage / "d" / name)
    await copies.copy("d", target="/t", place=copies.of_stage())
    inodes = {os.stat(copies.root / "t" / name).st_ino for name in "abc"}
    assert len(inodes) == 1 and inodes != {os.stat(copies.stage / "d/a").st_ino}


# -- trees that no honest client makes --------------------------------------------------------------------
_PLAIN = Entry(name=b"x", size=7, digest=digest_of(b"content"))
WRONG = {
    "a tree that is a file": replace(_PLAIN, kind="tree"),
    "a digest that is a path": replace(_PLAIN, digest="sha256:" + "../" * 21 + "x"),
    "a digest that is none": replace(_PLAIN, digest="/etc/passwd"),
    "an object that is not there": replace(_PLAIN, digest="sha256:" + "0" * 64),
    "a zero byte in a link": Entry(name=b"x", kind="link", target=b"a\0b"),
    "a link without a target": Entry(name=b"x", kind="link"),
    "a link that is too long": Entry(name=b"x", kind="link", target=b"a" * 5000),
}


@pytest.mark.parametrize("what", WRONG)
async def test_tree_that_lies_is_refused_in_one_line(copies: CopyPlace, what: str) -> None:
    copies.objects.put(b"content")
    root = copies.objects.tree(WRONG[what])
    for source in (".", "x"):
        with pytest.raises((Damaged, InvalidInput, NotFound)) as caught:
            await copies.copy(source, target="/t/", place=TreeSource(root=root.digest))
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


async def test_attributes_of_the_storage_driver_are_not_taken(copies: CopyPlace) -> None:
    copies.has(copies.stage, {"d/x": "x"})
    for path in (copies.stage / "d", copies.stage / "d/x"):
        os.setxattr(path, "trusted.overlay.opaque", b"y")
        os.setxattr(path, "user.overlay.origin", b"y")
        os.setxattr(path, "user.kept", b"y")
    await copies.copy(".", target="/", place=copies.of_stage())
    for path in (copies.root / "d", copies.root / "d/x"):
        assert os.listxattr(path) == ["user.kept"]


@pytest.mark.parametrize("name", [b"..", b".", b"a/b", b"", b"a\0b", b"l" * 256])
async def test_name_that_leads_out_is_refused(copies: CopyPlace, name: bytes) -> None:
    digest = copies.objects.put(b"content")
    tree = encode(Tree(entries=(Entry(name=name, size=7, digest=digest),)))
    with pytest.raises(Damaged, match="name that can't be"):
        await copies.copy(".", target="/", place=TreeSource(root=copies.objects.put(tree)))


async def test_size_that_lies_changes_nothing_about_the_content(copies: CopyPlace, tmp_path: Path) -> None:
    digest = copies.objects.put(b"content")
    root = copies.objects.tree(Entry(name=b"x", size=1 << 50, digest=digest))
    await copies.copy(".", target="/", place=TreeSource(root=root.digest))
    assert copies.seen() == {"x": "f 0644 0:0 content"}
