"""COPY and ADD where names, links and heredocs are not what they seem."""

from __future__ import annotations

import os
from typing import Any

import pytest
from msgspec.structs import replace

from image.build.base import FileSource, TreeSource
from image.build.places import MAX_DEPTH
from image.build.step import CopyStep, InlineFile
from model.errors import InvalidInput, NotFound, Unsupported
from tests.kernel.test_build_copies import filled
from tests.support.copies import CopyPlace, Link

__all__ = ["filled"]

pytestmark = pytest.mark.kernel


async def test_source_date_epoch_bounds_all_times(filled: CopyPlace) -> None:
    os.utime(filled.context / "b.txt", ns=(5, 77))
    await filled.copy("a.txt", "b.txt", "sub", target="/p/q/", epoch=1000)
    for path in ("p", "p/q", "p/q/a.txt", "p/q/inner", "p/q/inner/y", "p/q/away"):
        assert os.lstat(filled.root / path).st_mtime_ns == 1000 * 10**9, path
    assert os.stat(filled.root / "p/q/b.txt").st_mtime_ns == 77


# -- heredocs and files of URLs --------------------------------------------------------------------------
async def test_heredocs_become_files(copies: CopyPlace) -> None:
    files = (InlineFile(name="one", content=b"1\n"), InlineFile(name="two", content=b"2\n"))
    step = CopyStep(sources=(), target="/d/", inline=files, owner="5")
    chosen = await copies.copying.choose(step, ())
    await copies.copying.copy(str(copies.root), step, ())
    assert copies.seen() == {"d": "d 0755 5:5", "d/one": "f 0644 5:5 1\n", "d/two": "f 0644 5:5 2\n"}
    assert (chosen.files, chosen.size) == (2, 4)
    single = CopyStep(sources=(), target="/script", inline=files[:1], mode="755")
    await copies.copying.copy(str(copies.root), single, ())
    assert copies.seen()["script"] == "f 0755 0:0 1\n"


async def test_file_of_a_url_gets_its_name_mode_and_time(copies: CopyPlace) -> None:
    fetched = copies.base / "fetched"
    fetched.write_text("content")
    source = FileSource(path=str(fetched), name="app.tgz", mtime_ns=1_700_000_000_000_000_000)
    step = CopyStep(sources=("https://example.com/app.tgz",), target="/d/", add=True)
    chosen = await copies.copying.choose(step, (source,))
    await copies.copying.copy(str(copies.root), step, (source,))
    assert copies.seen() == {"d": "d 0755 0:0", "d/app.tgz": "f 0600 0:0 content"}
    assert os.stat(copies.root / "d/app.tgz").st_mtime_ns == 1_700_000_000_000_000_000
    fetched.write_text("Content")
    assert (await copies.copying.choose(step, (source,))).key != chosen.key


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc/passwd", "a\0b"])
async def test_name_of_a_url_or_heredoc_that_is_none_is_refused(copies: CopyPlace, name: str) -> None:
    fetched = copies.base / "fetched"
    fetched.write_text("content")
    source = FileSource(path=str(fetched), name=name)
    steps: tuple[tuple[CopyStep, tuple[FileSource, ...]], ...] = (
        (CopyStep(sources=("https://e.org/",), target="/d/", add=True), (source,)),
        (CopyStep(sources=(), target="/d/", inline=(InlineFile(name=name, content=b""),)), ()),
    )
    for step, sources in steps:
        with pytest.raises(InvalidInput, match="no name of a file"):
            await copies.copying.copy(str(copies.root), step, sources)
    assert copies.seen() == {"d": "d 0755 0:0"}
    named = CopyStep(sources=("https://e.org/",), target="/d/x", add=True)
    await copies.copying.copy(str(copies.root), named, (source,))
    assert copies.seen()["d/x"] == "f 0600 0:0 content"


# -- names -----------------------------------------------------------------------------------------------
async def test_names_that_are_no_text_or_look_like_options_are_copied(copies: CopyPlace) -> None:
    """B34."""
    names = [b"-rf", b"new\nline", b"\xff\xfe", b"spa ce", b"l" * 255, b"*", b"[a]", b"\\"]
    for name in names:
        with open(os.path.join(os.fsencode(copies.context), name), "wb") as file:
            file.write(name)
    await copies.copy(".", target="/a")
    await copies.copy("*", target="/b/")
    for folder in (b"a", b"b"):
        top = os.path.join(os.fsencode(copies.root), folder)
        assert sorted(os.listdir(top)) == sorted(names)


async def test_name_that_marks_removed_files_is_refused(copies: CopyPlace) -> None:
    copies.has(copies.context, {"d/.wh.etc": ""})
    for source in ("d", "d/.wh.etc"):
        with pytest.raises(Unsupported, match="no layer can hold"):
            await copies.copy(source, target="/x/")


async def test_missing_source_is_named_with_the_nearest(filled: CopyPlace) -> None:
    with pytest.raises(NotFound) as caught:
        await filled.copy("a.text", target="/")
    assert "a.text is not there. a.txt is." in str(caught.value) and ".dockerignore" in str(caught.value)
    with pytest.raises(NotFound, match="sub/nothing is not there"):
        await filled.copy("sub/nothing", target="/", parents=True)


@pytest.mark.parametrize("name", ["n" * 256, "a\0b"])
async def test_name_that_no_file_can_have_is_refused_in_words(filled: CopyPlace, name: str) -> None:
    for target in (f"/{name}", f"/{name}/", f"/{name}/x"):
        with pytest.raises(InvalidInput, match="in the stage"):
            await filled.copy("a.txt", target=target)
    with pytest.raises(InvalidInput, match="in the stage"):
        await filled.workdir(f"/{name}")
    for place in (filled.of_context(), filled.of_stage()):
        with pytest.raises(NotFound, match="is not there"):
            await filled.copy(name, target="/x", place=place)


# -- --link ----------------------------------------------------------------------------------------------
async def test_linked_copy_is_a_layer_of_its_own(filled: CopyPlace) -> None:
    """What stands there is not followed, and gets the layer's modes and owners."""
    filled.has(
        filled.root,
        {"usr/lib/old": "old", "lib": Link("usr/lib"), "s": (None, 0o700), "f/x": "", "s/inner/z": ""},
    )
    os.chown(filled.root / "s", 5, 5)
    await filled.copy("sub", target="/s", link=True)
    await filled.copy("a.txt", target="/lib/new/a", link=True)
    await filled.copy("a.txt", target="/f", link=True)
    assert filled.seen() == {
        "usr": "d 0755 0:0",
        "usr/lib": "d 0755 0:0",
        "usr/lib/old": "f 0644 0:0 old",
        "lib": "d 0755 0:0",
        "lib/new": "d 0755 0:0",
        "lib/new/a": "f 0644 0:0 aaa",
        "s": "d 0755 0:0",
        "s/x": "f 0644 0:0 xxx",
        "s/inner": "d 0755 0:0",
        "s/inner/z": "f 0644 0:0 ",
        "s/inner/y": "f 0400 0:0 yyy",
        "s/away": "l 0:0 /etc/passwd",
        "f": "f 0644 0:0 aaa",
    }


@pytest.mark.parametrize("fields", [{}, {"link": True}, {"parents": True}, {"exclude": ("x",)}])
async def test_folders_as_deep_as_a_context_may_have_them_are_copied(
    filled: CopyPlace, fields: dict[str, Any]
) -> None:
    here = filled.objects.tree()
    for _ in range(MAX_DEPTH - 2):
        here = filled.objects.tree(replace(here, name=b"d"))
    for _ in range(2):  # the second over the first
        await filled.copy("/", target="/", place=TreeSource(root=here.digest), **fields)
    assert sum(path.is_dir() for path in filled.root.rglob("*")) == MAX_DEPTH - 2


async def test_linked_copy_knows_no_users(filled: CopyPlace) -> None:
    filled.has(filled.root, {"etc/passwd": "app:x:9:10::/:\n"})
    with pytest.raises(InvalidInput, match="--link"):
        await filled.copy("a.txt", target="/x", link=True, owner="app")
    await filled.copy("a.txt", target="/x", link=True, owner="9")
    assert filled.seen()["x"] == "f 0644 9:9 aaa"
