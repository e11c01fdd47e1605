"""Images that leave a host: pushed and saved whole, under the digests they came with, whatever cuts in."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from image.store import ImageStore
from model.errors import NotFound
from model.image import Progress
from tests.support.images import chunks, oci_archive
from tests.support.imagestores import ARCHIVE, BASE, BUILT, OTHER, layers_on_disk, made, reopened, tree
from tests.support.registry import FakeRegistry
from tests.support.waiting import until

pytestmark = pytest.mark.kernel
MOST = 60


@asynccontextmanager
async def elsewhere(root: Path) -> AsyncIterator[ImageStore]:
    """Another host's."""
    store = made(root / "elsewhere")
    (root / "elsewhere").mkdir()
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def pulled(store: ImageStore, registry: FakeRegistry) -> None:
    await store.pull(f"{registry.host}/app:1")
    await store.tag(f"{registry.host}/app:1", f"{registry.host}/sent:1")


async def loaded(store: ImageStore, registry: FakeRegistry) -> None:
    await store.load(chunks(ARCHIVE))
    await store.tag("app:1", f"{registry.host}/sent:1")


async def loaded_layout(store: ImageStore, registry: FakeRegistry) -> None:
    await store.load(chunks(oci_archive(BUILT, name="docker.io/library/app:1")))
    await store.tag("app:1", f"{registry.host}/sent:1")


async def imported(store: ImageStore, registry: FakeRegistry) -> None:
    await store.import_tar(chunks(BASE), ref=f"{registry.host}/sent:1")


SOURCES = [pulled, loaded, loaded_layout, imported]
Source = Callable[[ImageStore, FakeRegistry], Awaitable[None]]


@pytest.mark.parametrize("source", SOURCES)
async def test_pushed_image_is_the_same_where_it_is_pulled(
    store: ImageStore, registry: FakeRegistry, tmp_path: Path, source: Source
) -> None:
    await source(store, registry)
    registry.blobs.clear()
    name = f"{registry.host}/sent:1"
    record = await store.push(name)
    async with elsewhere(tmp_path) as other:
        got = await other.pull(name)
        assert (got.id, got.config, got.layers) == (record.id, record.config, record.layers)
        assert set(got.digests) <= set(record.digests)
        await other.prepare_root("c", got.id)
        root = await other.mount_root("c")
        assert tree(root.path)["etc/issue"] == b"base"
        await other.remove_root("c")


@pytest.mark.parametrize("source", [pulled, loaded_layout])
async def test_push_keeps_the_digest_that_the_image_came_with(
    store: ImageStore, registry: FakeRegistry, source: Source
) -> None:
    await source(store, registry)
    record = await store.push(f"{registry.host}/sent:1")
    assert f"{registry.host}/sent@{BUILT.digest}" in record.digests
    assert store.find(f"{registry.host}/sent@{BUILT.digest}").id == BUILT.id


async def test_push_over_a_layer_in_another_compression_makes_a_manifest_that_fits(
    store: ImageStore, registry: FakeRegistry
) -> None:
    """The base layer is here already, compressed by us."""
    await store.import_tar(chunks(BASE), ref="base")
    await pulled(store, registry)
    registry.blobs.clear()
    await store.push(f"{registry.host}/sent:1")
    _, data = registry.manifests["1"]
    assert json.loads(data)["config"]["digest"] == BUILT.id and data != BUILT.manifest


async def test_push_of_a_name_that_the_image_does_not_have_is_refused(
    store: ImageStore, registry: FakeRegistry
) -> None:
    await store.load(chunks(ARCHIVE))
    with pytest.raises(NotFound, match="does not exist locally with the tag"):
        await store.push(f"{registry.host}/sent:1")
    with pytest.raises(NotFound, match="does not exist locally with the tag"):
        await store.push(BUILT.id[7:19])
    assert registry.acts == []


@pytest.mark.parametrize("source", [pulled, loaded_layout])
async def test_image_of_an_older_release_is_pushed_once_it_was_fetched_again(
    store: ImageStore, registry: FakeRegistry, tmp_path: Path, source: Source
) -> None:
    await source(store, registry)
    await store.close()
    for link in (tmp_path / "images/layers").glob("*/link"):
        marker = json.loads(link.read_bytes())
        del marker["packed"]
        link.write_text(json.dumps(marker))
        (link.parent / "blob").unlink()
    async with reopened(tmp_path) as later:
        before = layers_on_disk(tmp_path)
        with pytest.raises(NotFound, match="older release"):
            await later.push(f"{registry.host}/sent:1")
        await source(later, registry)
        assert layers_on_disk(tmp_path) == before
        record = await later.push(f"{registry.host}/sent:1")
        assert f"{registry.host}/sent@{BUILT.digest}" in record.digests


async def test_image_that_is_removed_while_it_is_pushed_is_pushed_whole(
    store: ImageStore, registry: FakeRegistry, tmp_path: Path
) -> None:
    await loaded(store, registry)
    lines: list[Progress] = []
    name = f"{registry.host}/sent:1"
    push = asyncio.ensure_future(store.push(name, progress=lines.append))
    await until(lambda: lines, deadline=5)
    await store.remove(BUILT.id, force=True)
    await push
    assert set(BUILT.blobs) & set(registry.blobs) and "1" in registry.manifests
    assert store.list() == []


async def test_saved_images_are_loaded_as_they_were(store: ImageStore, tmp_path: Path) -> None:
    await store.load(chunks(ARCHIVE))
    await store.import_tar(chunks(OTHER), ref="other:2")
    data = b"".join([piece async for piece in store.save(["app:1", "other:2"])])
    again = b"".join([piece async for piece in store.save(["app:1", "other:2"])])
    assert hashlib.sha256(data).digest() == hashlib.sha256(again).digest()
    async with elsewhere(tmp_path) as other:
        got = await other.load(chunks(data))
        assert {r.id for r in got} == {r.id for r in store.list()}
        assert {name for r in got for name in r.names} == {
            "docker.io/library/app:1",
            "docker.io/library/other:2",
        }


async def test_saving_what_is_not_there_gives_not_a_byte(store: ImageStore) -> None:
    await store.load(chunks(ARCHIVE))
    with pytest.raises(NotFound):
        await anext(store.save(["app:1", "absent"]))


# -- killed -----------------------------------------------------------------------------------------
class Steps:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def run(self, verb: str, ref: str, at: int) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{verb} {ref} {at}\n".encode())
        return int(await self._process.stdout.readline())


@pytest.fixture
async def steps(tmp_path: Path) -> AsyncIterator[Steps]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.killedsteps", str(tmp_path),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    yield Steps(process)
    process.kill()
    await process.wait()


async def test_pull_killed_at_any_step_leaves_whole_images_only(
    registry: FakeRegistry, tmp_path: Path, steps: Steps
) -> None:
    for at in range(MOST):
        status = await steps.run("pull", f"{registry.host}/app:1", at)
        assert status in (0, signal.SIGKILL)
        async with reopened(tmp_path) as store:
            assert [r.id for r in store.list()] in ([], [BUILT.id])
            assert status or store.list()
            for layer in (tmp_path / "images/layers").glob("[0-9]*"):
                packed = json.loads((layer / "link").read_bytes())["packed"]
                blob = (layer / "blob").read_bytes()
                assert packed["digest"] == "sha256:" + hashlib.sha256(blob).hexdigest()
            await store.prune(all_unused=True)
        if status == 0:
            break
    else:
        raise AssertionError("it has more steps than were tried")
    assert at > 5


async def test_push_killed_at_any_step_leaves_the_tag_whole_or_absent(
    registry: FakeRegistry, tmp_path: Path, steps: Steps
) -> None:
    name = f"{registry.host}/sent:now"
    async with reopened(tmp_path) as store:
        await store.load(chunks(ARCHIVE))
        await store.tag("app:1", name)
    for at in range(MOST):
        registry.blobs.clear()
        registry.manifests.clear()
        status = await steps.run("push", name, at)
        assert status in (0, signal.SIGKILL)
        if "now" in registry.manifests:
            named = json.loads(registry.manifests["now"][1])
            parts = [named["config"], *named["layers"]]
            assert {part["digest"] for part in parts} <= registry.blobs.keys()
        if status == 0:
            break
    else:
        raise AssertionError("it has more steps than were tried")
    assert "now" in registry.manifests and at > 5
