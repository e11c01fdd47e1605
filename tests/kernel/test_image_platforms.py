"""Indexes in the store: all platforms pulled, found by platform, pushed whole, with what refers to them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from agent.host import HostAgent
from agent.imageapi import ImageApi
from aio.clock import SystemClock
from aio.mailbox import Bell
from image.base import PushWish
from image.blobs import BlobStore
from image.reference import parse
from image.registry.source import IndexPush
from image.store import ImageStore
from model.errors import InUse, NotFound
from model.image import Progress
from tests.support.images import INDEX, MANIFEST, Built, chunks, descriptor, digest, image, index, oci_archive
from tests.support.imagestores import BASE, OTHER, TOP, documents, layers_on_disk, reopened
from tests.support.registry import FakeRegistry, serving
from tests.support.waiting import until

pytestmark = pytest.mark.kernel
AMD, ARM = image([BASE, TOP]), image([BASE, OTHER], arch="arm64")
BOTH = index((AMD, "amd64"), (ARM, "arm64"))
ARM64 = "linux/arm64"


def attested(*images: tuple[Built, str]) -> tuple[bytes, Built]:
    """An index as BuildKit makes it: one more manifest tells how the images were made."""
    document = json.loads(index(*images))
    config, layer = b'{"architecture":"unknown","os":"unknown"}', b'{"predicate":"made"}'
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(config, "application/vnd.oci.image.config.v1+json"),
            "layers": [descriptor(layer, "application/vnd.in-toto+json")],
        }
    ).encode()
    nowhere = {"os": "unknown", "architecture": "unknown"}
    document["manifests"].append(descriptor(raw, MANIFEST, platform=nowhere))
    built = Built(manifest=raw, config=config)
    built.blobs = {digest(data): data for data in (config, layer)}
    return json.dumps(document).encode(), built


def referrer(subject: bytes, kind: str) -> Built:
    """An artifact that refers to a manifest."""
    config, content = b"{}", f"{kind} of it".encode()
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": f"application/vnd.example.{kind}",
            "config": descriptor(config, "application/vnd.oci.empty.v1+json"),
            "layers": [descriptor(content, "text/plain")],
            "subject": descriptor(subject, MANIFEST),
        }
    ).encode()
    built = Built(manifest=raw, config=config)
    built.blobs = {digest(data): data for data in (config, content)}
    return built


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    fake = FakeRegistry()
    for built in (AMD, ARM):
        fake.push(built, built.digest)
    fake.push_index(BOTH, "1")
    async with serving(fake) as served:
        yield served


@pytest.fixture
async def other() -> AsyncIterator[FakeRegistry]:
    async with serving(FakeRegistry()) as served:
        yield served


async def test_all_platforms_share_names_and_are_found_by_platform(
    store: ImageStore, registry: FakeRegistry
) -> None:
    name = f"{registry.host}/app:1"
    found = await store.pull_all(name)
    assert [record.platform.arch for record in found] == ["amd64", "arm64"]
    assert store.find(name).id == store.find(name, "linux/amd64").id == AMD.id
    assert store.find(name, ARM64).id == store.find(f"{registry.host}/app@{digest(BOTH)}", ARM64).id == ARM.id
    assert {record.names for record in store.list()} == {(name,)}
    with pytest.raises(NotFound, match="not here for linux/s390x, only for linux/amd64, linux/arm64"):
        store.find(name, "linux/s390x")


async def test_platforms_outlive_a_restart_and_a_tag_goes_to_all(
    store: ImageStore, registry: FakeRegistry, tmp_path: Path
) -> None:
    await store.pull_all(f"{registry.host}/app:1")
    await store.tag(f"{registry.host}/app:1", "mine:2")
    async with reopened(tmp_path) as again:
        assert [again.find("mine:2", wish).id for wish in ("", ARM64)] == [AMD.id, ARM.id]
        await again.prune()
        assert len(again.list()) == 2


async def test_removed_platform_leaves_the_other_under_the_name(
    store: ImageStore, registry: FakeRegistry
) -> None:
    name = f"{registry.host}/app:1"
    await store.pull_all(name)
    await store.remove(store.find(name, "linux/amd64").id)
    assert store.find(name).id == ARM.id


async def test_name_that_moves_to_another_image_leaves_all_platforms(
    store: ImageStore, registry: FakeRegistry
) -> None:
    name = f"{registry.host}/app:1"
    await store.pull_all(name)
    new = image([OTHER])
    registry.push(new, "1")
    await store.pull(name)
    assert store.find(name).id == new.id
    assert [record.names for record in store.list() if record.id != new.id] == [(), ()]


async def test_ensure_takes_the_platform_that_is_here(store: ImageStore, registry: FakeRegistry) -> None:
    name = f"{registry.host}/app:1"
    await store.pull_all(name)
    before = len(registry.requests)
    assert (await store.ensure(name, policy="missing", platform=ARM64)).id == ARM.id
    assert len(registry.requests) == before


async def test_pull_of_all_that_fails_leaves_nothing(store: ImageStore, registry: FakeRegistry) -> None:
    del registry.manifests[ARM.digest]
    with pytest.raises(NotFound):
        await store.pull_all(f"{registry.host}/app:1")
    assert store.list() == []


async def test_image_without_an_index_is_pulled_as_ever(store: ImageStore, registry: FakeRegistry) -> None:
    registry.push(AMD, "plain")
    assert [r.id for r in await store.pull_all(f"{registry.host}/app:plain")] == [AMD.id]


# -- pushed -----------------------------------------------------------------------------------------
async def test_whole_index_is_pushed_byte_for_byte(
    store: ImageStore, registry: FakeRegistry, other: FakeRegistry
) -> None:
    target = f"{other.host}/mine:2"
    await store.pull_all(f"{registry.host}/app:1")
    await store.tag(f"{registry.host}/app:1", target)
    record = await store.push(target)
    assert other.manifests["2"] == (INDEX, BOTH)
    assert {AMD.digest, ARM.digest} <= other.manifests.keys() and ARM.blobs.keys() <= other.blobs.keys()
    assert f"{other.host}/mine@{digest(BOTH)}" in record.digests


async def test_attestations_of_an_index_are_fetched_where_it_came_from(
    store: ImageStore, registry: FakeRegistry, other: FakeRegistry
) -> None:
    data, made = attested((AMD, "amd64"), (ARM, "arm64"))
    registry.push(made, made.digest)
    registry.push_index(data, "1")
    await store.pull_all(f"{registry.host}/app:1")
    assert len(store.list()) == 2
    await store.tag(f"{registry.host}/app:1", f"{other.host}/mine:2")
    await store.push(f"{other.host}/mine:2")
    assert other.manifests["2"] == (INDEX, data)
    assert made.digest in other.manifests and made.blobs.keys() <= other.blobs.keys()


@pytest.mark.parametrize("how", ["asked for", "a platform is gone"])
async def test_one_platform_is_pushed_where_it_is_asked_for_or_alone(
    store: ImageStore, registry: FakeRegistry, other: FakeRegistry, how: str
) -> None:
    target = f"{other.host}/mine:2"
    await store.pull_all(f"{registry.host}/app:1")
    await store.tag(f"{registry.host}/app:1", target)
    if how == "asked for":
        await store.push(target, PushWish(platform=ARM64))
    else:
        await store.remove(AMD.id, force=True)
        await store.push(target)
    assert other.manifests["2"] == (MANIFEST, ARM.manifest) and AMD.digest not in other.manifests


@pytest.mark.parametrize("lists", [True, False], ids=["api", "tag"])
async def test_referrers_go_along_when_asked_for(
    store: ImageStore, registry: FakeRegistry, other: FakeRegistry, lists: bool
) -> None:
    signature, parts = referrer(AMD.manifest, "signature"), referrer(AMD.manifest, "sbom")
    for built in (signature, parts):
        registry.push(built, built.digest)
    cosign = image([OTHER])
    registry.push(cosign, f"sha256-{AMD.digest[7:]}.sig")
    other.referrers = lists
    target = f"{other.host}/mine:2"
    await store.pull(f"{registry.host}/app:1")
    await store.tag(f"{registry.host}/app:1", target)
    await store.push(target)
    assert signature.digest not in other.manifests
    lines: list[Progress] = []
    await store.push(target, PushWish(referrers=True), progress=lines.append)
    for built in (signature, parts):
        assert other.manifests[built.digest][1] == built.manifest and built.blobs.keys() <= other.blobs.keys()
    assert other.manifests[f"sha256-{AMD.digest[7:]}.sig"][1] == cosign.manifest
    assert "Referrers copied: 3" in [line.status for line in lines]
    listed = other.manifests.get(f"sha256-{AMD.digest[7:]}")
    assert (listed is None) is lists
    if listed is not None:
        entries = json.loads(listed[1])["manifests"]
        assert {entry["digest"] for entry in entries} == {signature.digest, parts.digest}
        assert entries[0]["artifactType"].startswith("application/vnd.example.")
        await store.push(target, PushWish(referrers=True))
        assert other.manifests[f"sha256-{AMD.digest[7:]}"] == listed


async def test_referrers_that_a_registry_keeps_by_tag_are_found(
    store: ImageStore, registry: FakeRegistry, other: FakeRegistry
) -> None:
    registry.referrers = False
    signature = referrer(AMD.manifest, "signature")
    registry.push(signature, signature.digest)
    entry = descriptor(signature.manifest, MANIFEST, artifactType="application/vnd.example.signature")
    listing = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).encode()
    registry.push_index(listing, f"sha256-{AMD.digest[7:]}")
    await store.pull(f"{registry.host}/app:1")
    await store.tag(f"{registry.host}/app:1", f"{other.host}/mine:2")
    await store.push(f"{other.host}/mine:2", PushWish(referrers=True))
    assert signature.digest in other.manifests


# -- lists made by hand ------------------------------------------------------------------------------
async def test_index_of_images_in_other_repositories_is_put_beside_them(
    store: ImageStore, registry: FakeRegistry
) -> None:
    registry.mountable = {"amd", "arm"}
    wish = IndexPush(
        reference=parse(f"{registry.host}/all:1"),
        data=BOTH,
        media_type=INDEX,
        origins=(parse(f"{registry.host}/amd@{AMD.digest}"), parse(f"{registry.host}/arm@{ARM.digest}")),
    )
    assert await store.source.push_index(wish) == digest(BOTH)
    assert registry.manifests["1"] == (INDEX, BOTH)


async def test_index_of_a_manifest_that_is_nowhere_is_refused(store: ImageStore, other: FakeRegistry) -> None:
    wish = IndexPush(reference=parse(f"{other.host}/all:1"), data=BOTH, media_type=INDEX)
    with pytest.raises(NotFound, match="is nowhere to be had"):
        await store.source.push_index(wish)
    assert "1" not in other.manifests


async def test_name_is_removed_with_all_platforms_and_one_by_its_platform(
    store: ImageStore, registry: FakeRegistry
) -> None:
    name = f"{registry.host}/app:1"
    context = SimpleNamespace(
        images=store,
        facts=SimpleNamespace(hostname="n1"),
        clock=SystemClock(),
        records={},
        room=SimpleNamespace(bell=Bell()),
    )
    events: list[object] = []
    agent = SimpleNamespace(context=context, reporter=SimpleNamespace(event=events.append))
    api = ImageApi(cast("HostAgent", agent))
    await store.pull_all(name)
    removed = await api.remove_image(name, force=False, platform=ARM64)
    assert (removed.deleted, removed.host) == ((ARM.id,), "n1")
    await store.pull_all(name)
    removed = await api.remove_image(name, force=False)
    assert set(removed.deleted) == {AMD.id, ARM.id} and removed.untagged == (name,)
    await store.pull_all(name)
    assert (await api.remove_image(AMD.id, force=False)).deleted == (AMD.id,)
    assert [record.id for record in store.list()] == [ARM.id]


async def test_family_of_which_one_is_used_stays_whole(store: ImageStore, registry: FakeRegistry) -> None:
    name = f"{registry.host}/app:1"
    await store.pull_all(name)
    await store.prepare_root("c1", ARM.id)
    with pytest.raises(InUse, match="used by container c1"):
        await store.remove(name, family=True)
    assert {record.names for record in store.list()} == {(name,)} and len(store.list()) == 2


async def test_spared_name_keeps_all_its_platforms_and_a_spared_id_one(
    store: ImageStore, registry: FakeRegistry
) -> None:
    name = f"{registry.host}/app:1"
    await store.pull_all(name)
    assert (await store.prune(all_unused=True, spare={name: "wanted"})).deleted == ()
    assert (await store.prune(all_unused=True, spare={AMD.id: "wanted"})).deleted == (ARM.id,)


async def test_lease_keeps_layers_and_documents_of_all_platforms(
    store: ImageStore, registry: FakeRegistry, tmp_path: Path
) -> None:
    name = f"{registry.host}/app:1"
    await store.pull_all(name)
    with store.lease(name):
        removed = await store.remove(name, family=True)
        assert set(removed.deleted) == {AMD.id, ARM.id} and removed.freed == 0
        kept = {f"sha256:{name}" for name in documents(tmp_path)}
        assert kept == {AMD.id, AMD.digest, ARM.id, ARM.digest} and len(layers_on_disk(tmp_path)) == 3
    await until(lambda: layers_on_disk(tmp_path) == [] and documents(tmp_path) == [], deadline=5)


# -- other hosts -------------------------------------------------------------------------------------
async def test_other_host_gets_its_index_and_the_image_of_this_platform(
    store: ImageStore, registry: FakeRegistry, tmp_path: Path
) -> None:
    late = index((ARM, "arm64"), (AMD, "amd64"))
    registry.push_index(late, "2")
    await store.pull_all(f"{registry.host}/app:2")
    shelf = store.shelf(BlobStore(tmp_path / "indexes"))
    entry = shelf.named(digest(late))
    assert entry is not None and entry.record.id == AMD.id
    assert shelf.documents(entry, digest(late)).documents == (late, AMD.manifest)


# -- archives ----------------------------------------------------------------------------------------
async def test_save_and_load_take_the_platform_that_is_asked_for(
    store: ImageStore, registry: FakeRegistry
) -> None:
    await store.pull_all(f"{registry.host}/app:1")
    data = b"".join([piece async for piece in store.save([f"{registry.host}/app:1"], ARM64)])
    assert ARM.config in data and AMD.config not in data
    await store.remove(f"{registry.host}/app:1")
    await store.remove(f"{registry.host}/app:1")
    (loaded,) = await store.load(chunks(oci_archive(ARM, name="app:9")), platform=ARM64)
    assert loaded.platform.arch == "arm64"


async def test_import_says_the_platform_that_is_asked_for(store: ImageStore) -> None:
    record = await store.import_tar(chunks(BASE), ref="base:1", platform="linux/arm/v7")
    assert (record.platform.arch, record.platform.variant) == ("arm", "v7")
