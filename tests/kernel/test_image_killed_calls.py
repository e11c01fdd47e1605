"""An image store killed before any change that it makes on disk: nothing half-made is used, nothing used
goes."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from image.store import ImageStore
from tests.support.images import chunks, image, index, member, tar
from tests.support.imagestores import ARCHIVE, BASE, BUILT, OTHER, layers_on_disk, made, reopened, tree
from tests.support.registry import FakeRegistry, serving
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
    await store.prepare_root("c", BUILT.id)
    (Path((await store.mount_root("c")).path) / "mine").write_bytes(b"m")
    await store.unmount_root("c")
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


class Killer:
    """Works done by a process that is killed before the so many-th change."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def run(self, verb: str, at: int, ref: str = "") -> bool:
        """Whether it came to its end."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{verb} {at} kill {ref}\n".encode())
        status = int(await self._process.stdout.readline())
        assert status in (0, signal.SIGKILL)
        return status == 0


@pytest.fixture
async def killer(tmp_path: Path) -> AsyncIterator[Killer]:
    (tmp_path / "run").mkdir()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.killedcalls", str(tmp_path / "run"),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    yield Killer(process)
    process.kill()
    await process.wait()


async def states(
    killer: Killer, tmp_path: Path, verb: str, ref: str = "", *, used: bool
) -> list[frozenset[str]]:
    """The names that a store has after a kill before each change in turn, the last of which never came; each
    time all of it is whole, and a container's image is there."""
    start, root = tmp_path / "start", tmp_path / "run"
    await (prepared(start) if used else empty(start))
    seen = []
    for at in range(MOST):
        shutil.rmtree(root / "images", ignore_errors=True)
        await asyncio.to_thread(copied, start / "images", root / "images")
        ended = await killer.run(verb, at, ref)
        async with reopened(root) as store:
            names = await whole(store, root)
            seen.append(frozenset(names))
            if used:
                assert "docker.io/library/app:1" in names
                mounted = await store.mount_root("c")
                assert set(tree(mounted.path)) == FILES | {"mine"}
                await store.remove_root("c")
        if ended:
            return seen
    raise AssertionError("it has more changes than were tried")


@pytest.mark.parametrize("verb", ["load", "import", "commit", "prune", "free", "remove"])
async def test_store_killed_before_any_change_of_the_disk_is_whole(
    tmp_path: Path, killer: Killer, verb: str
) -> None:
    seen = await states(killer, tmp_path, verb, used=verb not in ("load", "import"))
    assert len(seen) > 6 and len(set(seen)) == 2  # all of it, or nothing of it


TOP = tar(member("etc/motd", b"other top"), member(".wh.gone"))
LAYERS = [BASE, TOP, tar(member("mine", b"m"))]
PULLED = {arch: image(LAYERS, arch=arch) for arch in ("amd64", "arm64")}


@pytest.mark.parametrize("verb", ["pull", "pull-all"])
async def test_store_killed_before_any_change_of_a_pull_is_whole(
    tmp_path: Path, killer: Killer, verb: str
) -> None:
    """Of an image that has a layer of one that is used: all of it is there afterwards, or nothing."""
    async with serving(FakeRegistry()) as registry:
        for arch, built in PULLED.items():
            registry.push(built, arch)
        registry.push_index(index(*((built, arch) for arch, built in PULLED.items())), "1")
        name = f"{registry.host}/sent:1"
        seen = await states(killer, tmp_path, verb, name, used=True)
    before = {f"docker.io/library/{one}" for one in ("app:1", "other:latest")}
    assert len(seen) > 12 and set(seen) == {frozenset(before), frozenset({*before, name})}
    assert seen[-1] == {*before, name}
