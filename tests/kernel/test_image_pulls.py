"""Images pulled into the store on a real file system: what is moved, shared, pinned and refused."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from image.drivers.overlay import OverlayDriver
from image.registry.source import NoSource
from image.store import ImageStore
from model.errors import (
    Damaged,
    NotFound,
    Unsupported,
)
from model.image import Progress
from tests.support.images import chunks, image, index
from tests.support.imagestores import (
    BASE,
    BUILT,
    OTHER,
    layers_on_disk,
    reopened,
    tree,
)
from tests.support.registry import FakeRegistry
from tests.support.waiting import until

pytestmark = pytest.mark.kernel


async def test_pulled_image_is_complete_and_pinned(store: ImageStore, registry: FakeRegistry) -> None:
    lines: list[Progress] = []
    name = f"{registry.host}/app:1"
    record = await store.pull(name, progress=lines.append)
    assert (record.id, record.names) == (BUILT.id, (name,))
    pinned = f"{registry.host}/app@{BUILT.digest}"
    assert record.digests == (pinned,) and store.find(pinned) == record
    assert {"Downloading", "Extracting", "Pull complete"} <= {line.status for line in lines}
    await store.prepare_root("c", record.id)
    root = await store.mount_root("c")
    assert tree(root.path) == {"etc/issue": b"base", "etc/motd": b"top"}


async def test_pull_by_digest_gives_no_name(store: ImageStore, registry: FakeRegistry) -> None:
    record = await store.pull(f"{registry.host}/app@{BUILT.digest}")
    assert record.names == ()
    assert (await store.remove(f"{registry.host}/app@{BUILT.digest}")).deleted == (record.id,)


async def test_pull_moves_only_missing_layers(store: ImageStore, registry: FakeRegistry) -> None:
    await store.import_tar(chunks(BASE))
    lines: list[Progress] = []
    await store.pull(f"{registry.host}/app:1", progress=lines.append)
    assert len(registry.asked("/blobs/")) == 2  # the configuration and the top layer
    assert [line.status for line in lines].count("Already exists") == 1
    await store.pull(f"{registry.host}/app:1")
    assert len(registry.asked("/blobs/")) == 3


async def test_pulls_of_one_image_at_once_share_the_work(store: ImageStore, registry: FakeRegistry) -> None:
    async with asyncio.TaskGroup() as group:
        pulls = [group.create_task(store.pull(f"{registry.host}/app:1")) for _ in range(5)]
    assert len({pull.result().id for pull in pulls}) == 1
    assert len(registry.asked("/manifests/")) == 1


async def test_pull_goes_on_when_the_first_who_asked_leaves(
    store: ImageStore, registry: FakeRegistry
) -> None:
    async with asyncio.TaskGroup() as group:
        first = group.create_task(store.pull(f"{registry.host}/app:1"))
        second = group.create_task(store.pull(f"{registry.host}/app:1"))
        await until(lambda: registry.requests, deadline=5)
        first.cancel()
    assert second.result().id == BUILT.id
    assert len(registry.asked("/manifests/")) == 1


async def test_pull_ends_when_everyone_has_left(
    store: ImageStore, registry: FakeRegistry, tmp_path: Path
) -> None:
    registry.cut_after = [0] * 100
    task = asyncio.ensure_future(store.pull(f"{registry.host}/app:1"))
    await until(lambda: registry.asked("/blobs/"), deadline=5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    registry.cut_after = []
    await until(lambda: layers_on_disk(tmp_path) == [], deadline=5)
    assert os.listdir(tmp_path / "images/tmp") == []
    assert (await store.pull(f"{registry.host}/app:1")).id == BUILT.id


async def test_failed_pull_tells_all_and_leaves_nothing(
    store: ImageStore, registry: FakeRegistry, tmp_path: Path
) -> None:
    top = list(BUILT.blobs)[2]
    registry.blobs[top] = b"x" * len(registry.blobs[top])
    results = await asyncio.gather(
        *(store.pull(f"{registry.host}/app:1") for _ in range(2)), return_exceptions=True
    )
    assert [type(result) for result in results] == [Damaged, Damaged]
    assert store.list() == []
    await until(lambda: layers_on_disk(tmp_path) == [], deadline=5)


async def test_layer_whose_content_is_not_its_diff_id_is_refused(
    store: ImageStore, registry: FakeRegistry
) -> None:
    lying = image([OTHER])
    honest = image([BASE])
    lying.config = lying.config.replace(b"amd64", b"amd64")
    config = lying.config
    manifest = json.loads(honest.manifest)
    manifest["config"] = {**manifest["config"], "digest": lying.id, "size": len(config)}
    honest.manifest = json.dumps(manifest).encode()
    honest.blobs[lying.id] = config
    registry.push(honest, "lying")
    with pytest.raises(Damaged, match="as its image says"):
        await store.pull(f"{registry.host}/app:lying")


async def test_blob_of_a_layer_of_an_older_release_is_believed_only_unpacked(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    honest, lying = image([BASE]), image([OTHER])
    manifest = json.loads(lying.manifest)
    manifest["config"] = json.loads(honest.manifest)["config"]
    lying.manifest = json.dumps(manifest).encode()
    lying.blobs |= honest.blobs
    registry.push(honest, "honest")
    registry.push(lying, "lying")
    async with reopened(tmp_path) as store:
        await store.pull(f"{registry.host}/app:honest")
    [marker] = (tmp_path / "images/layers").glob("*/link")
    known = json.loads(marker.read_bytes())
    marker.write_text(json.dumps({key: known[key] for key in known if key != "packed"}))
    (marker.parent / "blob").unlink()
    async with reopened(tmp_path) as store:
        with pytest.raises(NotFound, match="unpacked by an older release"):
            [_ async for _ in store.save([honest.id])]
        with pytest.raises(Damaged, match="as its image says"):
            await store.pull(f"{registry.host}/app:lying")
        with pytest.raises(NotFound, match="unpacked by an older release"):
            [_ async for _ in store.save([honest.id])]
        await store.pull(f"{registry.host}/app:honest")
        assert [_ async for _ in store.save([honest.id])]
    assert {**json.loads(marker.read_bytes()), "boot": ""} == {**known, "boot": ""}


async def test_ensure_pulls_as_its_policy_says(store: ImageStore, registry: FakeRegistry) -> None:
    name = f"{registry.host}/app:1"
    with pytest.raises(NotFound):
        await store.ensure(name, policy="never")
    assert registry.requests == []
    record = await store.ensure(name, policy="missing")
    asked = len(registry.requests)
    assert await store.ensure(name, policy="missing") == record
    assert await store.ensure(record.id, policy="always") == record
    assert len(registry.requests) == asked
    registry.push(image([BASE]), "1")
    assert (await store.ensure(name, policy="always")).id == image([BASE]).id
    assert store.find(record.id).names == ()


async def test_name_that_looks_like_an_id_is_pulled_as_a_name(tmp_path: Path) -> None:
    store = ImageStore(tmp_path, driver_choice=(OverlayDriver(), "for tests"), source=NoSource())
    await store.open()
    try:
        record = await store.import_tar(chunks(BASE))
        name = record.id[7]
        assert (await store.ensure(name, policy="always")).id == record.id
        await store.tag(record.id, name)
        with pytest.raises(NotFound, match="pulls from no registry"):
            await store.ensure(name, policy="always")
    finally:
        await store.close()


async def test_image_for_another_platform_is_refused_and_fetched_on_demand(
    store: ImageStore, registry: FakeRegistry
) -> None:
    arm = image([BASE], arch="arm64")
    registry.push(arm, "arm")
    with pytest.raises(Unsupported, match="made for linux/arm64, not linux/amd64"):
        await store.ensure(f"{registry.host}/app:arm", policy="missing")
    registry.push(BUILT, "x")
    registry.push_index(index((arm, "arm64"), (BUILT, "amd64")), "both")
    name = f"{registry.host}/app:both"
    assert (await store.ensure(name, policy="missing", platform="linux/arm64")).id == arm.id
    assert (await store.ensure(name, policy="missing", platform="linux/amd64")).id == BUILT.id
