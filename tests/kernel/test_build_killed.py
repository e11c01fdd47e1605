"""A build killed, or its disk without power, before any change that it makes on disk: the next one is right,
and nothing is left."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from image.drivers.mounts import unmount
from image.store import ImageStore
from tests.kernel.test_image_killed_calls import empty
from tests.kernel.test_image_power import blank, fresh, mounted, place, process, rebooted
from tests.support.buildstore import StoreLab
from tests.support.imagestores import layers_on_disk, reopened, tree
from tests.support.killedcalls import BUILT_FILES, COMMANDS, DOCKERFILE
from tests.support.waiting import until

pytestmark = pytest.mark.kernel
__all__ = ["place", "process"]  # fixtures
MOST = 400


async def built(store: ImageStore) -> list[str]:
    """Build it; what was done anew."""
    lab = StoreLab(store, **COMMANDS)
    image = await lab.image(DOCKERFILE, names=("built",))
    await store.prepare_root("look", image.id)
    files = tree((await store.mount_root("look")).path)
    await store.remove_root("look")
    assert files == dict.fromkeys(BUILT_FILES, b"x")
    return lab.ran()


async def check(store: ImageStore, root: Path) -> int:
    """Nothing is there that nobody knows of; how many steps are to be done again."""
    assert os.listdir(root / "images/builds") == []
    assert not any(f"{root}/images" in line for line in Path("/proc/mounts").read_text().splitlines())
    known = {layer.chain for layer in store._layers}
    wanted = set(store.build_cache.chains()) | {
        chain for record in store.list() for chain in store.builds.of_image(record).layers
    }
    assert known == wanted
    assert len(layers_on_disk(root)) == len(known)
    ran = await built(store)
    await until(lambda: not store.build_cache.settling, deadline=20)
    assert await built(store) == []
    return len(ran)


async def test_build_killed_before_any_change_of_the_disk_leaves_the_next_one_right(tmp_path: Path) -> None:
    root = tmp_path / "run"
    root.mkdir()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.killedcalls", str(root),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    again: set[int] = set()
    try:
        for at in range(0, MOST, 2):
            shutil.rmtree(root / "images", ignore_errors=True)
            process.stdin.write(f"build {at} kill\n".encode())
            status = int(await process.stdout.readline())
            assert status in (0, signal.SIGKILL)
            async with reopened(root) as store:
                again.add(await check(store, root))
            if status == 0:
                break
        else:
            raise AssertionError("it has more changes than were tried")
    finally:
        process.kill()
        await process.wait()
        for left in (root / "images/builds").iterdir():
            unmount(str(left / "root"))
    assert at > 20
    assert {0, 4} <= again


async def test_build_whose_disk_loses_power_leaves_the_next_one_right(
    tmp_path: Path, place: Path, process: asyncio.subprocess.Process
) -> None:
    """Also right after its end: the image that was told is there."""
    start, disk, after = (tmp_path / name for name in ("start", "on", "off"))
    await asyncio.to_thread(blank, start)
    with mounted(start, place):
        await empty(place)
    assert process.stdin is not None and process.stdout is not None
    for at in range(0, MOST, 9):
        await asyncio.to_thread(fresh, start, disk)
        with mounted(disk, place):
            process.stdin.write(f"build {at} power\n".encode())
            status = int(await process.stdout.readline())
            assert status in (0, signal.SIGKILL)
            for left in place.glob("images/builds/*"):
                unmount(str(left / "root"))
        await asyncio.to_thread(fresh, disk, after)
        with mounted(after, place):
            rebooted(place)
            async with reopened(place) as store:
                told = [name for record in store.list() for name in record.names]
                await check(store, place)
        if status == 0:
            assert told == ["docker.io/library/built:latest"]
            break
    else:
        raise AssertionError("it has more changes than were tried")
