"""Names of one file in a context, or a stage, stay so where they are copied."""

from __future__ import annotations

import os
from typing import Any

import pytest
from msgspec.structs import replace

from image.build.base import Source, TreeSource
from model.contexttree import Entry
from tests.support.copies import CopyPlace

pytestmark = pytest.mark.kernel


def shared(place: CopyPlace, *entries: Entry) -> TreeSource:
    """A context with a folder `d` that has them, of one content."""
    digest = place.objects.put(b"one")
    folder = place.objects.tree(*(replace(entry, digest=digest, size=3) for entry in entries))
    return TreeSource(root=place.objects.tree(replace(folder, name=b"d")).digest)


def inodes(place: CopyPlace) -> dict[str, int]:
    files = (path for path in place.root.rglob("*") if path.is_file())
    return {str(path.relative_to(place.root)): path.stat().st_ino for path in files}


@pytest.mark.parametrize("fields", [{}, {"link": True}, {"owner": "7:8", "mode": "640"}, {"exclude": ("x",)}])
async def test_names_of_one_file_in_a_context_stay_one_file(
    copies: CopyPlace, fields: dict[str, Any]
) -> None:
    place = shared(
        copies,
        Entry(name=b"a", group=1),
        Entry(name=b"b", group=1),
        Entry(name=b"c", group=2),
        Entry(name=b"e", group=2),
        Entry(name=b"f"),
    )
    await copies.copy("d", target="/new", place=place, **fields)
    found = inodes(copies)
    assert found["new/a"] == found["new/b"] and found["new/c"] == found["new/e"]
    assert len(set(found.values())) == 3


async def test_names_of_one_file_that_say_different_things_are_files_of_their_own(copies: CopyPlace) -> None:
    place = shared(
        copies,
        Entry(name=b"a", group=1, mode=0o4755),
        Entry(name=b"b", group=1),
        Entry(name=b"c", group=1, mtime_ns=5),
    )
    await copies.copy("d", target="/new", place=place)
    assert len(set(inodes(copies).values())) == 3
    assert copies.seen()["new/b"] == "f 0644 0:0 one"


async def test_sources_that_are_files_are_files_of_their_own(copies: CopyPlace) -> None:
    """As Docker: what each source means is copied for itself."""
    place = shared(copies, Entry(name=b"a", group=1), Entry(name=b"b", group=1))
    await copies.copy("d/a", "d/b", "d/*", target="/new/", place=place)
    assert len(set(inodes(copies).values())) == 2


async def test_more_names_than_a_file_may_have_begin_another_file(copies: CopyPlace) -> None:
    """ext4 takes 65,000."""
    names = [b"%d" % number for number in range(65_100)]
    place = shared(copies, *(Entry(name=name, group=1) for name in names))
    await copies.copy("d", target="/new", place=place)
    found = inodes(copies)
    assert len(found) == len(names) and len(set(found.values())) <= 2


async def key(copies: CopyPlace, place: Source, **fields: Any) -> str:
    return (await copies.choose("d", place=place, **fields)).key


@pytest.mark.parametrize("fields", [{}, {"exclude": ("x",)}])
async def test_key_tells_names_of_one_file_from_files_of_their_own(
    copies: CopyPlace, fields: dict[str, Any]
) -> None:
    a, b, c = (Entry(name=name) for name in (b"a", b"b", b"c"))
    keys = [
        await key(copies, shared(copies, a, b, c), **fields),
        await key(copies, shared(copies, replace(a, group=1), replace(b, group=1), c), **fields),
        await key(copies, shared(copies, a, replace(b, group=1), replace(c, group=1)), **fields),
    ]
    assert len(set(keys)) == 3


async def test_key_of_a_stage_tells_names_of_one_file_from_files_of_their_own(copies: CopyPlace) -> None:
    copies.has(copies.stage, {"d/a": "one", "d/b": "one"})
    apart = await key(copies, copies.of_stage())
    (copies.stage / "d/b").unlink()
    os.link(copies.stage / "d/a", copies.stage / "outside")
    copies.has(copies.stage, {"d/b": "one"})
    assert await key(copies, copies.of_stage()) == apart, "a name that is not copied does not count"
    (copies.stage / "d/b").unlink()
    os.link(copies.stage / "d/a", copies.stage / "d/b")
    assert await key(copies, copies.of_stage()) != apart
