"""What the cache knows of a COPY, and files of any size."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from image.build.base import RootSource, TreeSource
from model.contexttree import MAX_SIZE, Entry
from model.errors import FlotaError, InvalidInput
from tests.kernel.test_image_oracles import described
from tests.support.copies import CONTEXT, CopyPlace, Link, fill
from tests.support.wildtrees import Wild

pytestmark = pytest.mark.kernel


@pytest.fixture
def filled(copies: CopyPlace) -> CopyPlace:
    copies.has(copies.context, CONTEXT)
    return copies


def _instead(path: Path, content: str) -> None:
    path.unlink()
    fill(path, content)


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda top: (top / "sub/x").write_text("xxy"),
    "mode": lambda top: os.chmod(top / "sub/x", 0o640),
    "name": lambda top: os.rename(top / "sub/x", top / "sub/w"),
    "new directory": lambda top: os.mkdir(top / "sub/new"),
    "directory's mode": lambda top: os.chmod(top / "sub/inner", 0o700),
    "directory moved": lambda top: os.rename(top / "sub/inner", top / "sub/deeper"),
    "removed": lambda top: os.unlink(top / "sub/x"),
    "link": lambda top: _instead(top / "sub/away", Link("/etc")),
    "link into file": lambda top: _instead(top / "sub/away", "/etc/passwd"),
}


@pytest.fixture(params=["context", "stage"])
def top(request: pytest.FixtureRequest, copies: CopyPlace) -> Path:
    """Where the files are that are asked for."""
    folder: Path = getattr(copies, request.param)
    copies.has(folder, CONTEXT)
    return folder


async def key(copies: CopyPlace, top: Path, *sources: str, **fields: Any) -> str:
    place = copies.of_stage() if top == copies.stage else copies.of_context()
    return (await copies.choose(*(sources or ("sub",)), place=place, **fields)).key


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_key_counts_content_and_attributes(
    copies: CopyPlace, top: Path, change: Callable[[Path], object]
) -> None:
    before = await key(copies, top), await key(copies, top, exclude=("z",))
    change(top)
    after = await key(copies, top), await key(copies, top, exclude=("z",))
    assert before[0] != after[0] and before[1] != after[1]


async def test_key_counts_neither_times_nor_what_is_not_copied(copies: CopyPlace, top: Path) -> None:
    before = await key(copies, top), await key(copies, top, exclude=("inner",))
    for path in ("sub/x", "sub/inner", "sub", "a.txt"):
        os.utime(top / path, ns=(1, 1))
    (top / "a.txt").write_text("other")
    assert await key(copies, top) == before[0]
    (top / "sub/inner/y").write_text("other")
    assert (await key(copies, top), await key(copies, top, exclude=("inner",))) != before
    assert await key(copies, top, exclude=("inner",)) == before[1]


async def test_key_counts_the_name_that_a_file_is_written_under(copies: CopyPlace, top: Path) -> None:
    os.rename(top / "a.txt", top / "c.txt")
    first = await key(copies, top, "c*")
    os.rename(top / "c.txt", top / "ca.txt")
    assert await key(copies, top, "c*") != first


async def test_key_of_a_root_counts_owners_and_devices(copies: CopyPlace) -> None:
    copies.has(copies.stage, {"d/f": "f"})
    seen = set()
    changes: tuple[Callable[[], object], ...] = (
        lambda: (),
        lambda: os.chown(copies.stage / "d/f", 5, 0),
        lambda: os.chown(copies.stage / "d/f", 5, 6),
        lambda: os.setxattr(copies.stage / "d/f", "user.x", b"1"),
        lambda: os.mknod(copies.stage / "d/n", stat.S_IFCHR | 0o600, os.makedev(1, 3)),
    )
    for change in changes:
        change()
        seen.add((await copies.choose("d", place=copies.of_stage())).key)
    assert len(seen) == 5


async def test_key_of_what_is_left_out_does_not_count(filled: CopyPlace) -> None:
    """Of `--parents` neither what does not match, nor directories that lead to nothing."""
    before = (await filled.choose("**/y", parents=True)).key
    filled.has(filled.context, {"other/z": "z", "sub/w": "w"})
    assert (await filled.choose("**/y", parents=True)).key == before
    filled.has(filled.context, {"other/y": "y"})
    assert (await filled.choose("**/y", parents=True)).key != before


async def test_whole_context_is_chosen_without_its_files_being_looked_at(filled: CopyPlace) -> None:
    source = filled.of_context()
    for path in filled.objects.folder.rglob("*"):
        if path.is_file() and path.name != source.root[7:]:
            path.unlink()
    assert (await filled.choose(".", place=source)).key
    with pytest.raises(FlotaError, match="is gone"):
        await filled.choose(".", place=source, exclude=("x",))


# -- size --------------------------------------------------------------------------------------------
async def test_sparse_file_of_a_tebibyte_stays_sparse_and_costs_no_time(copies: CopyPlace) -> None:
    """B35."""
    with open(copies.stage / "huge", "wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 39)
        file.write(b"data")
    chosen = await copies.copy("huge", target="/huge", place=copies.of_stage())
    status = os.stat(copies.root / "huge")
    assert status.st_size == chosen.size == 1 << 40 and status.st_blocks < 1000
    fd = os.open(copies.root / "huge", os.O_RDONLY)
    assert os.pread(fd, 4, 1 << 39) == b"data"
    os.close(fd)
    with open(copies.stage / "huge", "r+b") as file:
        file.seek(1 << 38)
        file.write(b"more")
    assert (await copies.choose("huge", place=copies.of_stage())).key != chosen.key


async def test_zeros_have_one_key_whether_they_are_holes_or_not(copies: CopyPlace) -> None:
    size = 5 << 20
    (copies.stage / "a").write_bytes(bytes(size))
    dense = await copies.choose("a", place=copies.of_stage())
    os.truncate(copies.stage / "a", 0)
    os.truncate(copies.stage / "a", size)
    assert (await copies.choose("a", place=copies.of_stage())).key == dense.key


async def test_times_before_1970_and_after_9999_are_bounded(copies: CopyPlace) -> None:
    """B35."""
    digest = copies.objects.put(b"x")
    times = (-1, -MAX_SIZE, MAX_SIZE)
    root = copies.objects.tree(
        *(Entry(name=b"f%d" % n, size=1, digest=digest, mtime_ns=time) for n, time in enumerate(times))
    )
    await copies.copy(".", target="/", place=TreeSource(root=root.digest))
    assert os.stat(copies.root / "f0").st_mtime_ns == -1
    assert os.stat(copies.root / "f2").st_mtime_ns > 0


async def test_deep_directories_are_copied_up_to_a_limit(copies: CopyPlace, tmp_path: Path) -> None:
    async def deep(count: int) -> None:
        entry = copies.objects.tree()
        for _ in range(count):
            entry = copies.objects.tree(replace(entry, name=b"d"))
        await copies.copy(".", target="/t", place=TreeSource(root=entry.digest), exclude=("nothing",))

    await deep(500)
    with pytest.raises(InvalidInput, match="deeper than"):
        await deep(520)


@pytest.mark.parametrize("seed", range(4))
async def test_any_tree_of_a_stage_comes_over_as_it_is(copies: CopyPlace, seed: int) -> None:
    """Names, kinds, owners, modes, times, attributes (but empty ones, which no layer can hold), content and
    hard links; and the copy has the same key."""
    wild = copies.stage / "wild"
    wild.mkdir()
    Wild(wild, seed).grow(250)
    for base, folders, _ in os.walk(wild, topdown=False):
        for name in folders:  # growing a directory has changed its time
            if not os.path.islink(os.path.join(base, name)):
                os.utime(os.path.join(base, name), ns=(1, seed))
    chosen = await copies.copy("wild", target="/tame", place=copies.of_stage())
    theirs = _below(wild)
    assert _below(copies.root / "tame") == theirs
    twin = RootSource(path=str(copies.root))
    assert (await copies.choose("tame", place=twin)).key == chosen.key
    again = copies.base / "again"
    again.mkdir()
    copies.root = again
    await copies.copy(".", target="/", place=copies.of_stage(), link=True)
    assert _below(again / "wild") == theirs


def _below(top: Path) -> dict[str, tuple[Any, ...]]:
    return {
        name: (*facts[:5], {key: value for key, value in facts[5].items() if value}, *facts[6:])
        for name, facts in described(top).items()
        if name != "."
    }
