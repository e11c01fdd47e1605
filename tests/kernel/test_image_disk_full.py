"""A disk that is full, in each of what images do: said in words, given back, and room can be made."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from image.drivers.overlay import OverlayDriver
from image.full import PIECE
from image.registry.client import RegistryClient
from image.store import ImageStore
from model.errors import Exhausted
from tests.support.images import chunks, docker_archive, image, index, member, tar
from tests.support.imagestores import ARCHIVE, BUILT, OTHER
from tests.support.registry import FakeRegistry, serving
from tests.support.waiting import until

pytestmark = pytest.mark.kernel
SIZE = 120 << 20
NOISE = tar(member("noise", os.urandom(1 << 20) * 60))
BIG = image([NOISE])
BIG_ARCHIVE = docker_archive(BIG, [NOISE], names=["big:1"])


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Without anything kept for root, so that full is full."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
async def small(disk: Path) -> AsyncIterator[ImageStore]:
    choice = (OverlayDriver(), "for tests")
    store = ImageStore(disk / "images", driver_choice=choice, source=RegistryClient())
    await store.open()
    yield store
    for root in store.roots():
        await store.remove_root(root.container)
    await store.close()


def free(place: Path) -> int:
    status = os.statvfs(place)
    return status.f_bavail * status.f_frsize


def fill(place: Path, leave: int = 0) -> Path:
    """What somebody else writes there."""
    other = place / "somebody"
    with open(other, "wb") as file:
        size = free(place) - leave
        os.posix_fallocate(file.fileno(), 0, size)
    assert free(place) <= leave + 4096
    return other


async def settled(place: Path) -> None:
    await until(lambda: os.listdir(place / "images/trash") == [], deadline=10)
    assert os.listdir(place / "images/tmp") == []


async def pull(store: ImageStore) -> None:
    fake = FakeRegistry()
    fake.push(BIG, "1")
    async with serving(fake) as registry:
        await store.pull(f"{registry.host}/app:1")


async def pull_all(store: ImageStore) -> None:
    fake, other = FakeRegistry(), image([NOISE], arch="arm64")
    fake.push(BIG, "amd64")
    fake.push(other, "arm64")
    fake.push_index(index((BIG, "amd64"), (other, "arm64")), "1")
    async with serving(fake) as registry:
        await store.pull_all(f"{registry.host}/app:1")


async def load(store: ImageStore) -> None:
    await store.load(chunks(BIG_ARCHIVE))


async def imported(store: ImageStore) -> None:
    await store.import_tar(chunks(NOISE), ref="big:1")


@pytest.mark.parametrize("leave", [0, 20 << 20, 75 << 20], ids=["full", "nearly", "too small to unpack"])
@pytest.mark.parametrize("act", [pull, pull_all, load, imported])
async def test_transfer_to_a_full_disk_is_said_and_given_back(
    small: ImageStore, disk: Path, act: object, leave: int
) -> None:
    await small.load(chunks(ARCHIVE))
    before = small.list()
    other = fill(disk, leave)
    at_first = free(disk)
    with pytest.raises(Exhausted) as refused:
        await act(small)  # type: ignore[operator]
    assert "space" in refused.value.message or "room" in refused.value.message
    assert small.list() == before
    await settled(disk)
    await until(lambda: free(disk) >= at_first - (64 << 10), deadline=10)
    other.unlink()
    await small.import_tar(chunks(OTHER), ref="after")


@pytest.mark.parametrize("how", ["prune", "free", "remove"])
async def test_removal_makes_room_on_a_disk_that_is_wholly_full(
    small: ImageStore, disk: Path, how: str
) -> None:
    await small.load(chunks(ARCHIVE))
    fill(disk)
    if how == "prune":
        removed = await small.prune(all_unused=True)
    elif how == "free":
        removed = await small.free(1, spare={}, unused_for=0)
    else:
        removed = await small.remove("app:1")
    assert removed.deleted == (BUILT.id,) and small.list() == []
    await settled(disk)
    again = ImageStore(disk / "images", driver_choice=(OverlayDriver(), "for tests"), source=RegistryClient())
    await again.open()
    assert again.list() == []
    await again.close()


async def test_ballast_is_laid_again_once_there_is_room(small: ImageStore, disk: Path) -> None:
    ballast = disk / "images/ballast"
    assert ballast.stat().st_blocks * 512 >= PIECE
    await small.load(chunks(ARCHIVE))
    ballast.unlink()  # as a removal that was cut short leaves it
    other = fill(disk)
    with pytest.raises(Exhausted):
        await small.prune(all_unused=True)
    other.unlink()
    await small.prune(all_unused=True)
    assert ballast.stat().st_blocks * 512 >= PIECE
