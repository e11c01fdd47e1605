"""An image store whose disk loses power: what was told as done is there, what is there is whole."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.kernel.test_image_killed_calls import FILES, PULLED, empty, prepared, whole
from tests.support.imagestores import reopened, tree
from tests.support.registry import FakeRegistry, serving
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kernel
MOST = 120
SIZE = 140 << 20


@contextlib.contextmanager
def mounted(disk: Path, place: Path) -> Iterator[None]:
    """On disk when the block ends, also where another mount namespace has a copy of the mount meanwhile: a
    second mount of the same file would be that very file system, so each is a file of its own."""
    subprocess.run(["mount", "-o", "loop", disk, place], check=True)
    try:
        yield
        subprocess.run(["sync", "-f", place], stderr=subprocess.DEVNULL)  # fails where the power is off
    finally:
        wait_until(lambda: _unmounted(place), deadline=10, what="nobody uses the disk")


def _unmounted(place: Path) -> bool:
    """Processes that were forked for the store end a moment after it."""
    return subprocess.run(["umount", place], stderr=subprocess.DEVNULL).returncode == 0


@pytest.fixture
async def place(tmp_path: Path) -> Path:
    found = tmp_path / "place"
    found.mkdir()
    return found


@pytest.fixture
async def process(place: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    made = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.killedcalls", str(place),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    yield made
    made.kill()
    await made.wait()


def fresh(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    subprocess.run(["cp", "--sparse=always", source, target], check=True)


def blank(disk: Path) -> None:
    with open(disk, "wb") as file:
        file.truncate(SIZE)
    subprocess.run(["mkfs.ext4", "-q", "-N", "3000", disk], check=True)


@pytest.mark.parametrize(
    ("verb", "stride"), [("load", 3), ("import", 2), ("commit", 3), ("prune", 1), ("free", 1), ("remove", 1)]
)
async def test_store_whose_disk_loses_power_at_any_change_is_whole(
    tmp_path: Path, place: Path, process: asyncio.subprocess.Process, verb: str, stride: int
) -> None:
    """Also right after the end: what was said to be done is done."""
    used, start, disk, after = verb not in ("load", "import"), *(tmp_path / n for n in ("start", "on", "off"))
    await asyncio.to_thread(blank, start)
    with mounted(start, place):
        await (prepared(place) if used else empty(place))
    assert process.stdin is not None and process.stdout is not None
    for at in range(0, MOST, stride):
        await asyncio.to_thread(fresh, start, disk)
        with mounted(disk, place):
            process.stdin.write(f"{verb} {at} power\n".encode())
            status = int(await process.stdout.readline())
            assert status in (0, signal.SIGKILL)
        await asyncio.to_thread(fresh, disk, after)
        with mounted(after, place):
            names = await looked_at(place, used=used)
        if status == 0:
            assert names == WANTED[verb]
            break
    else:
        raise AssertionError("it has more changes than were tried")


WANTED = {
    "load": {"docker.io/library/app:1"},
    "import": {"docker.io/library/other:latest"},
    "commit": {f"docker.io/library/{name}" for name in ("app:1", "other:latest", "made:1")},
    **{verb: {"docker.io/library/app:1"} for verb in ("prune", "free", "remove")},
}


async def looked_at(place: Path, *, used: bool) -> set[str]:
    """The images of the store, whole, and the container on one of them."""
    async with reopened(place) as store:
        for layer in (place / "images/layers").glob("[0-9]*"):
            packed = json.loads((layer / "link").read_bytes())["packed"]
            assert os.path.getsize(layer / "blob") == packed["size"]
        names = await whole(store, place)
        if used:
            assert "docker.io/library/app:1" in names
            root = await store.mount_root("c")
            assert set(tree(root.path)) == FILES | {"mine"}
            await store.unmount_root("c")
        return names


def rebooted(place: Path) -> None:
    """What may not be on disk yet is of another boot of the machine."""
    for link in place.glob("images/layers/*/link"):
        marker = json.loads(link.read_bytes() or b"{}")
        if marker.get("boot"):
            link.write_text(json.dumps({**marker, "boot": "another"}))


async def test_store_whose_disk_loses_power_at_any_change_of_a_pull_is_whole(
    tmp_path: Path, place: Path, process: asyncio.subprocess.Process
) -> None:
    """Its layers come to the disk by and by: the image is there afterwards, whole, or is pulled again."""
    start, disk, after = (tmp_path / name for name in ("start", "on", "off"))
    await asyncio.to_thread(blank, start)
    with mounted(start, place):
        await prepared(place)
    assert process.stdin is not None and process.stdout is not None
    async with serving(FakeRegistry()) as registry:
        registry.push(PULLED["amd64"], "1")
        name = f"{registry.host}/sent:1"
        for at in range(0, MOST, 4):
            await asyncio.to_thread(fresh, start, disk)
            with mounted(disk, place):
                process.stdin.write(f"pull {at} power {name}\n".encode())
                status = int(await process.stdout.readline())
                assert status in (0, signal.SIGKILL)
            await asyncio.to_thread(fresh, disk, after)
            with mounted(after, place):
                rebooted(place)
                names = await looked_at(place, used=True)
                assert names - {name} == WANTED["commit"] - {"docker.io/library/made:1"}
                async with reopened(place) as store:
                    assert (await store.pull(name)).id == PULLED["amd64"].id
                    assert name in await whole(store, place)
            if status == 0:
                return
    raise AssertionError("it has more changes than were tried")
