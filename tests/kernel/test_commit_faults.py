"""Commits that go wrong: cut short, killed, on a full disk, of a container that goes or is written
meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from image.commit import Commit
from image.store import ImageStore
from model.errors import Exhausted, NotFound, Unsupported
from model.image import ImageConfig
from tests.kernel.test_image_roots import free, small_disk
from tests.support.images import chunks
from tests.support.imagestores import BASE, layers_on_disk, made, reopened
from tests.support.waiting import until

pytestmark = pytest.mark.kernel
__all__ = ["small_disk"]
WISH = Commit(config=ImageConfig(cmd=("sh",)), ref="made:1", at=1.0)


async def container(store: ImageStore, name: str = "c") -> Path:
    record = await store.import_tar(chunks(BASE), ref="base:1")
    await store.prepare_root(name, record.id)
    return Path((await store.mount_root(name)).path)


@pytest.mark.parametrize("after", [0.0, 0.01, 0.05, 0.1, 0.2, 0.4])
async def test_commit_that_is_cancelled_leaves_nothing_half_made(
    store: ImageStore, tmp_path: Path, after: float
) -> None:
    root = await container(store)
    for number in range(2000):
        (root / f"f{number}").write_bytes(b"x")
    before = layers_on_disk(tmp_path)
    task = asyncio.ensure_future(store.commit("c", WISH))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(task), after)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    whole = len(store.list()) - 1
    assert whole in (0, 1)
    await until(lambda: len(layers_on_disk(tmp_path)) == len(before) + whole, deadline=5)
    await store.commit("c", WISH)


KILLED = """
import asyncio, sys
from pathlib import Path
from image.commit import Commit
from model.image import ImageConfig
from tests.support.imagestores import made
async def main():
    store = made(Path(sys.argv[1]))
    await store.open()
    print("open", flush=True)
    await store.commit("c", Commit(config=ImageConfig(), ref="made:1", at=1.0))
    print("done", flush=True)
asyncio.run(main())
"""


def killed_commit(root: Path, after: float) -> None:
    """A process that commits, killed after so many seconds."""
    words = [sys.executable, "-c", KILLED, str(root)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"open\n"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(after)
        process.kill()


@pytest.mark.parametrize("after", [0.0, 0.02, 0.05, 0.1, 0.2, 0.5])
async def test_commit_that_is_killed_leaves_nothing_half_made(
    store: ImageStore, tmp_path: Path, after: float
) -> None:
    """With the store's process its child goes too, which writes the layer."""
    root = await container(store)
    for number in range(3000):
        (root / f"f{number}").write_bytes(b"x" * 1000)
    await asyncio.to_thread(killed_commit, tmp_path, after)
    await until(lambda: not unpacking(tmp_path), deadline=5)
    async with reopened(tmp_path) as second:
        assert len(second.list()) in (1, 2)
        assert len(layers_on_disk(tmp_path)) == len(second.list())
        await second.commit("c", WISH)
        await until(lambda: os.listdir(tmp_path / "images/trash") == [], deadline=10)


def unpacking(place: Path) -> list[int]:
    """Processes whose root is below."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/root").startswith(str(place)):
                found.append(int(pid))
    return found


async def test_commit_on_a_full_disk_is_said_and_given_back(small_disk: Path) -> None:
    store = made(small_disk)
    await store.open()
    try:
        root = await container(store)
        (root / "noise").write_bytes(os.urandom(18 << 20))
        before = free(small_disk)
        with pytest.raises(Exhausted):
            await store.commit("c", WISH)
        assert [record.names for record in store.list()] == [("docker.io/library/base:1",)]
        await until(lambda: os.listdir(small_disk / "images/trash") == [], deadline=10)
        await until(lambda: free(small_disk)[0] > before[0] - (1 << 20), deadline=10)
        (root / "noise").unlink()
        await store.commit("c", WISH)
    finally:
        await store.remove_root("c")
        await store.close()


async def test_commit_of_a_container_that_is_removed_meanwhile_is_no_image(
    store: ImageStore, tmp_path: Path
) -> None:
    root = await container(store)
    for number in range(3000):
        (root / f"f{number}").write_bytes(b"x")
    task = asyncio.ensure_future(store.commit("c", WISH))
    await until(lambda: any(n.startswith("tmp-") for n in layers_on_disk(tmp_path)), deadline=5)
    await store.remove_root("c")
    with pytest.raises(NotFound):
        await task
    assert len(store.list()) == 1
    await until(lambda: len(layers_on_disk(tmp_path)) == 1, deadline=5)


async def test_commit_of_a_tree_that_changes_all_the_time_is_a_whole_image(
    store: ImageStore, tmp_path: Path
) -> None:
    """As with `--no-pause`: what comes and goes is in it or not, and files that shrink are whole members."""
    root = await container(store)
    over = threading.Event()

    def churn() -> None:
        number = 0
        while not over.is_set():
            number += 1
            place = root / f"d{number % 7}"
            with contextlib.suppress(OSError):
                place.mkdir()
                (place / "file").write_bytes(b"x" * (1 << 20))
                os.truncate(place / "file", number % 1000)
                os.rename(place / "file", root / f"f{number % 11}")
                place.rmdir()

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(8):
            record = await store.commit("c", WISH)
    finally:
        over.set()
        thread.join()
    await store.prepare_root("d", record.id)
    again = Path((await store.mount_root("d")).path)
    assert (again / "etc/issue").read_bytes() == b"base"


async def test_root_that_is_borrowed_stays_until_it_is_given_back(store: ImageStore) -> None:
    root = await container(store)
    await store.unmount_root("c")
    assert os.listdir(root) == []
    async with store.borrow_root("c"), store.borrow_root("c"):
        assert (root / "etc/issue").exists()
        await store.mount_root("c")
        await store.unmount_root("c")
        assert (root / "etc/issue").exists()
    assert os.listdir(root) == []
    async with store.borrow_root("c"):
        await store.mount_root("c")
    assert (root / "etc/issue").exists()


async def test_root_of_a_running_container_stays_though_a_new_agent_borrowed_it(
    store: ImageStore, tmp_path: Path
) -> None:
    root = await container(store)
    async with reopened(tmp_path) as second:
        async with second.borrow_root("c"):
            pass
        assert (root / "etc/issue").exists()


async def test_references_to_a_layer_below_are_refused_not_lost(store: ImageStore, tmp_path: Path) -> None:
    """An upper directory that was written while the kernel kept such references."""
    root = await container(store)
    (root / "dir").mkdir()
    os.setxattr(tmp_path / "images/roots/c/upper/dir", "trusted.overlay.redirect", b"/etc")
    with pytest.raises(Unsupported, match="/dir refers to a layer below"):
        await store.commit("c", WISH)
    await until(lambda: len(layers_on_disk(tmp_path)) == 1, deadline=5)
