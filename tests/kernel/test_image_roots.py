"""Containers' roots out of the store: private, cheap, there after a crash; and a disk that is full."""

from __future__ import annotations

import asyncio
import gzip
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from image.store import ImageStore
from model.errors import (
    Damaged,
    Exhausted,
    NotFound,
)
from tests.support.images import chunks, member, tar
from tests.support.imagestores import (
    ARCHIVE,
    BASE,
    OTHER,
    disk_usage,
    layers_on_disk,
    made,
    reopened,
    tree,
)
from tests.support.waiting import until

pytestmark = pytest.mark.kernel


async def test_roots_of_one_image_are_private_and_cheap(store: ImageStore, tmp_path: Path) -> None:
    [record] = await store.load(chunks(ARCHIVE))
    for number in range(20):
        await store.prepare_root(f"c{number}", record.id)
        await store.mount_root(f"c{number}")
    paths = [root.path for root in store.roots()]
    Path(paths[0], "etc/issue").write_text("mine")
    assert [Path(path, "etc/issue").read_text() for path in paths[1:3]] == ["base", "base"]
    assert not any(Path(path, "gone").exists() for path in paths)
    assert await asyncio.to_thread(disk_usage, tmp_path / "images/roots") < 20 * (64 << 10)
    assert await store.root_usage("c0") > await store.root_usage("c1")


async def test_root_outlives_a_crash_of_the_agent(store: ImageStore, tmp_path: Path) -> None:
    record = await store.import_tar(chunks(BASE), ref="a")
    await store.prepare_root("c", record.id)
    root = await store.mount_root("c")
    Path(root.path, "new").write_text("written")
    async with reopened(tmp_path) as second:
        assert second.roots() == [root]
        assert await second.mount_root("c") == root
        assert Path(root.path, "new").read_text() == "written"
        await second.unmount_root("c")
        assert os.listdir(root.path) == []
        await second.mount_root("c")
        assert Path(root.path, "new").read_text() == "written"


async def test_root_calls_may_be_repeated_and_miss(store: ImageStore) -> None:
    record = await store.import_tar(chunks(BASE))
    for _ in range(2):
        await store.prepare_root("c", record.id)
        await store.mount_root("c")
    for _ in range(2):
        await store.unmount_root("c")
    for _ in range(2):
        await store.remove_root("c")
    with pytest.raises(NotFound):
        await store.mount_root("c")
    with pytest.raises(NotFound):
        await store.prepare_root("c", "sha256:" + "0" * 64)


async def test_root_that_was_half_made_goes_at_start(store: ImageStore, tmp_path: Path) -> None:
    roots = tmp_path / "images/roots"
    (roots / "half/upper").mkdir(parents=True)
    (roots / "empty").mkdir()
    (roots / "empty/root.json").touch()
    async with reopened(tmp_path) as second:
        assert second.roots() == []
        assert os.listdir(roots) == []


async def test_root_whose_record_is_damaged_is_not_thrown_away(store: ImageStore, tmp_path: Path) -> None:
    record = await store.import_tar(chunks(BASE))
    await store.prepare_root("c", record.id)
    path = tmp_path / "images/roots/c/root.json"
    good = path.read_bytes()
    path.write_bytes(b"{damaged")
    with pytest.raises(Damaged, match="Move"):
        await made(tmp_path).open()
    path.write_bytes(good)


async def test_root_works_again_when_its_lost_layer_is_fetched_anew(
    store: ImageStore, tmp_path: Path
) -> None:
    record = await store.import_tar(chunks(BASE), ref="a")
    await store.prepare_root("c", record.id)
    shutil.rmtree(tmp_path / "images/layers" / layers_on_disk(tmp_path)[0])
    async with reopened(tmp_path) as second:
        assert second.list() == []
        with pytest.raises(Damaged, match="missing"):
            await second.mount_root("c")
        await second.import_tar(chunks(BASE), ref="a")
        root = await second.mount_root("c")
        assert tree(root.path)["etc/issue"] == b"base"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An ext4 of 100 MiB, on which the store keeps 64 free."""
    disk, place = tmp_path / "disk", tmp_path / "small"
    place.mkdir()
    with open(disk, "wb") as file:
        file.truncate(100 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-N", "3000", disk], check=True)
    subprocess.run(["mount", "-o", "loop", disk, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def free(place: Path) -> tuple[int, int]:
    status = os.statvfs(place)
    return status.f_bavail * status.f_frsize, status.f_favail


@pytest.mark.parametrize(
    "make",
    [
        lambda: gzip.compress(tar(member("zeros", bytes(90 << 20))), 1),
        lambda: tar(member("noise", os.urandom(1 << 20) * 150)),
        lambda: gzip.compress(tar(*(member(f"f{n}") for n in range(5000))), 1),
    ],
    ids=["unpacks to too much", "does not fit as it comes", "too many files"],
)
async def test_full_disk_is_said_and_given_back(small_disk: Path, make: Callable[[], bytes]) -> None:
    store = made(small_disk)
    await store.open()
    try:
        record = await store.import_tar(chunks(BASE), ref="good")
        before = free(small_disk)
        with pytest.raises(Exhausted):
            await store.import_tar(chunks(make()), ref="bad")
        assert store.list() == [record]
        await until(lambda: os.listdir(small_disk / "images/trash") == [], deadline=10)
        await until(lambda: free(small_disk)[0] > before[0] - (1 << 20), deadline=10)
        await until(lambda: free(small_disk)[1] >= before[1] - 5, deadline=10)
        await store.import_tar(chunks(OTHER), ref="after")
    finally:
        await store.close()
