"""Layers unpacked while they come, several at once: what is visible when, and what a power loss takes."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from image.drivers.overlay import OverlayDriver
from image.manifest import Descriptor
from image.registry.client import RegistryClient
from image.registry.source import Remote
from image.store import ImageStore
from model.errors import Damaged
from tests.support.images import digest, folder, image, member, tar
from tests.support.imagestores import BASE, BUILT, layers_on_disk, reopened, tree
from tests.support.registry import FakeRegistry
from tests.support.waiting import until

pytestmark = pytest.mark.kernel
LOW = tar(folder("tmp", mode=0o1777, uid=3, gid=4, mtime=99), folder("d", mode=0o700), member("old", b"o"))
HIGH = tar(member("tmp/x", b"x"), member("d/e/y", b"y"), member(".wh.old"))
LARGE = tar(*(member(f"f{n}", os.urandom(200_000)) for n in range(30)))


class Gated(RegistryClient):
    """The lowest layer comes only once `gate` is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def download(
        self, remote: Remote, layer: Descriptor, path: Path, progress: Callable[[int], None]
    ) -> None:
        if layer == remote.layers[0]:
            await self.gate.wait()
        await super().download(remote, layer, path, progress)


@contextlib.asynccontextmanager
async def gated(root: Path) -> AsyncIterator[tuple[ImageStore, Gated]]:
    source = Gated()
    store = ImageStore(root / "images", driver_choice=(OverlayDriver(), "for tests"), source=source)
    await store.open()
    try:
        yield store, source
    finally:
        await store.close()


def unpacked_aside(root: Path) -> list[Path]:
    """Files of the upper layer while it is half-made."""
    return list((root / "images/layers").glob("tmp-*/fs/d/e/y"))


async def test_upper_layer_is_unpacked_before_the_lower_one_comes_and_then_takes_its_attributes(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    registry.push(image([LOW, HIGH]), "1")
    async with gated(tmp_path) as (store, source):
        pull = asyncio.ensure_future(store.pull(f"{registry.host}/app:1"))
        await until(lambda: unpacked_aside(tmp_path), deadline=10)
        assert store.list() == [] and not any(name.isdigit() for name in layers_on_disk(tmp_path))
        source.gate.set()
        record = await pull
        await store.prepare_root("c", record.id)
        root = Path((await store.mount_root("c")).path)
        assert tree(str(root)) == {"tmp/x": b"x", "d/e/y": b"y"}
        status = os.lstat(root / "tmp")
        assert (status.st_mode & 0o7777, status.st_uid, status.st_gid, status.st_mtime) == (0o1777, 3, 4, 99)
        assert stat.S_IMODE(os.lstat(root / "d").st_mode) == 0o700
        assert stat.S_IMODE(os.lstat(root / "d/e").st_mode) == 0o755
        await store.remove_root("c")


async def test_pull_cancelled_while_the_lower_layer_is_missing_leaves_nothing(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    registry.push(image([LOW, HIGH]), "1")
    async with gated(tmp_path) as (store, _):
        pull = asyncio.ensure_future(store.pull(f"{registry.host}/app:1"))
        await until(lambda: unpacked_aside(tmp_path), deadline=10)
        pull.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pull
        await until(lambda: layers_on_disk(tmp_path) == [], deadline=5)
        assert os.listdir(tmp_path / "images/tmp") == []


async def test_layer_of_right_content_in_another_blob_is_refused(
    store: ImageStore, registry: FakeRegistry, tmp_path: Path
) -> None:
    low = digest(gzip.compress(BASE, 1, mtime=0))
    twin = gzip.compress(BASE, 1, mtime=1)
    assert len(twin) == len(registry.blobs[low])
    registry.blobs[low] = twin
    with pytest.raises(Damaged, match="does not match its digest"):
        await store.pull(f"{registry.host}/app:1")
    await until(lambda: layers_on_disk(tmp_path) == [], deadline=5)


@pytest.mark.parametrize("ranges", [True, False])
async def test_transfer_that_breaks_in_the_middle_gives_the_whole_layer(
    store: ImageStore, registry: FakeRegistry, tmp_path: Path, ranges: bool
) -> None:
    registry.push(image([LARGE]), "large")
    registry.ranges = ranges
    name = f"{registry.host}/app:large"
    config = len(registry.blobs[json.loads(registry.manifests["large"][1])["config"]["digest"]])
    registry.cut_after = [config + 1, 3_000_000, 1 << 30]
    record = await store.pull(name)
    await store.prepare_root("c", record.id)
    root = Path((await store.mount_root("c")).path)
    assert len(tree(str(root))) == 30 and (root / "f29").stat().st_size == 200_000
    await store.remove_root("c")


def markers(root: Path) -> dict[Path, dict[str, object]]:
    return {path: json.loads(path.read_bytes()) for path in (root / "images/layers").glob("*/link")}


async def test_pulled_layers_are_brought_to_disk_by_and_by(
    store: ImageStore, registry: FakeRegistry, tmp_path: Path
) -> None:
    await store.pull(f"{registry.host}/app:1")
    await until(lambda: all("boot" not in marker for marker in markers(tmp_path).values()), deadline=20)
    assert len(markers(tmp_path)) == 2


async def test_layer_that_was_not_on_disk_when_the_machine_went_down_is_pulled_again(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    name = f"{registry.host}/app:1"
    async with reopened(tmp_path) as store:
        await store.pull(name)
        await until(lambda: all("boot" not in marker for marker in markers(tmp_path).values()), deadline=20)
    path, marker = next(iter(markers(tmp_path).items()))
    path.write_text(json.dumps({**marker, "boot": "an earlier one"}))
    async with reopened(tmp_path) as store:
        assert store.list() == []
        assert (await store.pull(name)).id == BUILT.id


async def test_layer_of_this_boot_that_is_not_on_disk_yet_is_kept_and_written(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    async with reopened(tmp_path) as store:
        await store.pull(f"{registry.host}/app:1")
        await until(lambda: all("boot" not in marker for marker in markers(tmp_path).values()), deadline=20)
    path, marker = next(iter(markers(tmp_path).items()))
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    path.write_text(json.dumps({**marker, "boot": boot}))
    async with reopened(tmp_path) as store:
        assert [record.id for record in store.list()] == [BUILT.id]
        await until(lambda: all("boot" not in marker for marker in markers(tmp_path).values()), deadline=20)
