"""An image store killed before any change that it makes on disk: nothing half-made is used, nothing used
goes."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from image.store import ImageStore
from tests.support.images import chunks
from tests.support.imagestores import ARCHIVE, BUILT, OTHER, layers_on_disk, made, reopened, tree
from tests.support.waiting import until

pytestmark = pytest.mark.kernel
MOST = 120
FILES = {"etc/issue", "etc/motd"}


async def prepared(root: Path) -> None:
    """A store with an image that a container stands on, and one that nothing uses."""
    store = made(root)
    await store.open()
    await store.load(chunks(ARCHIVE))
    await store.import_tar(chunks(OTHER), ref="other")
    made_root = await store.prepare_root("c", BUILT.id)
    (Path(made_root.upper) / "mine").write_bytes(b"m")
    await store.close()


async def empty(root: Path) -> None:
    store = made(root)
    await store.open()
    await store.close()


async def whole(store: ImageStore, root: Path) -> set[str]:
    """Names of its images, each of which has all its files, documents and blobs; and no layer more."""
    chains = set()
    for record in store.list():
        container = f"look-{record.id[7:19]}"
        await store.prepare_root(container, record.id)
        files = set(tree((await store.mount_root(container)).path))
        await store.remove_root(container)
        wanted = {1: {"other"}, 2: FILES, 3: FILES | {"mine"}}
        assert files == wanted[len(record.layers)]
        assert b"".join([piece async for piece in store.save([record.id])])
        chains |= {record.layers[: n + 1] for n in range(len(record.layers))}
    assert len(layers_on_disk(root)) == len(chains)
    await until(lambda: os.listdir(root / "images/trash") == [], deadline=5)
    assert os.listdir(root / "images/tmp") == []
    documents = {record.id[7:] for record in store.list()}
    assert documents <= set(os.listdir(root / "images/configs"))
    return {name for record in store.list() for name in record.names}


def copied(source: Path, target: Path) -> None:
    """Devices, attributes and all."""
    subprocess.run(["cp", "-a", source, target], check=True)


@pytest.mark.parametrize("verb", ["load", "import", "commit", "prune", "free", "remove"])
async def test_store_killed_before_any_change_of_the_disk_is_whole(tmp_path: Path, verb: str) -> None:
    used = verb not in ("load", "import")
    start, root = tmp_path / "start", tmp_path / "run"
    await (prepared(start) if used else empty(start))
    root.mkdir()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.killedcalls", str(root),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    seen: set[frozenset[str]] = set()
    try:
        for at in range(MOST):
            shutil.rmtree(root / "images", ignore_errors=True)
            await asyncio.to_thread(copied, start / "images", root / "images")
            process.stdin.write(f"{verb} {at} kill\n".encode())
            status = int(await process.stdout.readline())
            assert status in (0, signal.SIGKILL)
            async with reopened(root) as store:
                names = await whole(store, root)
                seen.add(frozenset(names))
                if used:
                    assert "docker.io/library/app:1" in names
                    mounted = await store.mount_root("c")
                    assert set(tree(mounted.path)) == FILES | {"mine"}
                    await store.remove_root("c")
            if status == 0:
                break
        else:
            raise AssertionError("it has more changes than were tried")
    finally:
        process.kill()
        await process.wait()
    assert at > 5 and len(seen) == 2  # all of it, or nothing of it
