"""What a crash, damage or a cancelled load leaves of the image store."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from image.store import ImageStore
from model.errors import (
    Damaged,
)
from tests.support.images import chunks
from tests.support.imagestores import (
    ARCHIVE,
    BASE,
    BUILT,
    layers_on_disk,
    made,
    reopened,
    tree,
)
from tests.support.killedsteps import CutsShort
from tests.support.registry import FakeRegistry
from tests.support.waiting import until

pytestmark = pytest.mark.kernel
MOST = 60


async def test_half_made_and_unused_layers_go_at_start(store: ImageStore, tmp_path: Path) -> None:
    await store.load(chunks(ARCHIVE))
    layers = tmp_path / "images/layers"
    (layers / "tmp-9/fs").mkdir(parents=True)
    (layers / "9/fs").mkdir(parents=True)
    shutil.copytree(layers / "1", layers / "77")
    kept = layers_on_disk(tmp_path)[:2]
    async with reopened(tmp_path) as second:
        assert len(second.list()) == 1
        assert layers_on_disk(tmp_path) == sorted(set(kept) - {"77", "9"})


async def test_damaged_marker_drops_the_layer_and_its_images(store: ImageStore, tmp_path: Path) -> None:
    await store.load(chunks(ARCHIVE))
    (tmp_path / "images/layers/2/link").write_bytes(b"\0" * 40)
    async with reopened(tmp_path) as second:
        assert second.list() == []
        await second.load(chunks(ARCHIVE))
        assert len(second.list()) == 1


async def test_damaged_catalog_is_named_and_left_alone(store: ImageStore, tmp_path: Path) -> None:
    await store.import_tar(chunks(BASE))
    path = tmp_path / "images/images.json"
    path.write_bytes(b"{")
    with pytest.raises(Damaged, match=r"images\.json"):
        await made(tmp_path).open()
    assert path.read_bytes() == b"{"


@pytest.mark.parametrize("steps", [1, 3, 8, 20, 40])
async def test_load_that_is_cancelled_leaves_nothing_half_made(
    store: ImageStore, tmp_path: Path, steps: int
) -> None:
    task = asyncio.ensure_future(store.load(chunks(ARCHIVE, 512)))
    for _ in range(steps):
        await asyncio.sleep(0.002)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    complete = [record.id for record in store.list()]
    assert complete in ([], [BUILT.id])
    if not complete:
        await until(lambda: layers_on_disk(tmp_path) == [], deadline=5)
    assert os.listdir(tmp_path / "images/tmp") == []


@pytest.mark.parametrize("how", ["load", "pull"])
async def test_transfer_cancelled_during_any_of_its_works_leaves_nothing_of_it(
    store: ImageStore, registry: FakeRegistry, tmp_path: Path, how: str
) -> None:
    async def transfer() -> None:
        await (store.load(chunks(ARCHIVE)) if how == "load" else store.pull(f"{registry.host}/app:1"))

    tmp, loop = tmp_path / "images/tmp", asyncio.get_running_loop()
    for at in range(MOST):
        task = asyncio.ensure_future(transfer())
        executor = CutsShort(at, task.cancel)
        loop.set_default_executor(executor)
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert os.listdir(tmp) == [], f"cancelled during work {at}"
        if executor.left >= 0:
            break
        await store.prune(all_unused=True)
    else:
        raise AssertionError("it has more works than were tried")
    assert at > 2


KILLED = """
import asyncio, sys
from pathlib import Path
from tests.support.images import chunks
from tests.support.imagestores import ARCHIVE, OTHER, made
async def main():
    store = made(Path(sys.argv[1]))
    await store.open()
    print("open", flush=True)
    while True:
        await store.load(chunks(ARCHIVE))
        await store.import_tar(chunks(OTHER), ref="other")
        print("there", flush=True)
        await store.remove("app:1")
        await store.remove("other")
asyncio.run(main())
"""


def killed_store(root: Path, after: float) -> None:
    """A process that loads and removes images without end, killed after so many seconds."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(root)], stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"open\n"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(after)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("after", [0.05, 0.15, 0.3, 0.45, 0.7])
async def test_store_killed_at_any_moment_opens_with_whole_images_only(tmp_path: Path, after: float) -> None:
    await asyncio.to_thread(killed_store, tmp_path, after)
    async with reopened(tmp_path) as store:
        for record in store.list():
            await store.prepare_root("c", record.id)
            root = await store.mount_root("c")
            wanted = {"other"} if len(record.layers) == 1 else {"etc/issue", "etc/motd"}
            assert set(tree(root.path)) == wanted
            await store.remove_root("c")
        images = {len(record.layers) for record in store.list()}
        assert len(layers_on_disk(tmp_path)) == sum(images)
        await store.load(chunks(ARCHIVE))
        await until(lambda: os.listdir(tmp_path / "images/trash") == [], deadline=5)
