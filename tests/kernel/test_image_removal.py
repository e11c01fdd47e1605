"""What may leave an image store, and what leases, roots and policies keep in it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aio.clock import VirtualClock
from image.drivers.overlay import OverlayDriver
from image.registry.client import RegistryClient
from image.store import ImageStore
from model.errors import Damaged, NotFound
from tests.support.images import chunks, docker_archive, image, member, tar
from tests.support.imagestores import ARCHIVE, BASE, BUILT, OTHER, TOP, documents, layers_on_disk
from tests.support.waiting import until

pytestmark = pytest.mark.kernel
DAY = 86400.0


@pytest.fixture
async def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def aged(tmp_path: Path, clock: VirtualClock) -> AsyncIterator[ImageStore]:
    """A store whose clock is the test's."""
    choice = (OverlayDriver(), "for tests")
    store = ImageStore(tmp_path / "images", driver_choice=choice, source=RegistryClient(), clock=clock)
    await store.open()
    yield store
    await store.close()


async def test_lease_keeps_layers_and_documents_of_a_removed_image_until_it_ends(
    aged: ImageStore, tmp_path: Path
) -> None:
    await aged.load(chunks(ARCHIVE))
    with aged.lease("app:1") as leased:
        await aged.remove("app:1")
        with pytest.raises(NotFound):
            aged.find("app:1")
        assert len(layers_on_disk(tmp_path)) == 2 and leased.id[7:] in documents(tmp_path)
    await until(lambda: layers_on_disk(tmp_path) == [] and documents(tmp_path) == [], deadline=5)


async def test_leased_image_is_neither_pruned_nor_collected(aged: ImageStore, clock: VirtualClock) -> None:
    await aged.load(chunks(ARCHIVE))
    await clock.advance(DAY)
    with aged.lease("app:1"):
        pruned = await aged.prune(all_unused=True)
        assert pruned.deleted == () and list(pruned.spared) == ["docker.io/library/app:1"]
        assert (await aged.free(1 << 40, spare={}, unused_for=0)).deleted == ()
    assert (await aged.prune(all_unused=True)).deleted == (BUILT.id,)


async def test_image_that_comes_again_while_it_is_removed_keeps_its_documents(
    aged: ImageStore, tmp_path: Path
) -> None:
    await aged.load(chunks(ARCHIVE))
    with aged.lease("app:1"):
        await aged.remove("app:1")
        await aged.load(chunks(ARCHIVE))
    await aged.prune()
    assert BUILT.id[7:] in documents(tmp_path)
    assert b"".join([piece async for piece in aged.save(["app:1"])])


async def test_freeing_takes_the_longest_unused_and_leaves_what_is_spared_or_young(
    aged: ImageStore, clock: VirtualClock, tmp_path: Path
) -> None:
    await aged.load(chunks(ARCHIVE))
    await clock.advance(10)
    other = await aged.import_tar(chunks(OTHER), ref="other")
    await clock.advance(10)
    third = await aged.import_tar(chunks(tar(member("third", b"z" * 5000))), ref="third")
    await clock.advance(100)
    everything = 1 << 40
    assert (await aged.free(everything, spare={}, unused_for=115)).deleted == (BUILT.id,)
    removed = await aged.free(everything, spare={"other": "wanted"}, unused_for=50)
    assert removed.deleted == (third.id,) and removed.freed >= 5000
    assert os.listdir(tmp_path / "images/trash") == []
    assert [image.id for image in aged.list()] == [other.id]


async def test_use_of_an_image_is_remembered_over_a_restart(
    aged: ImageStore, clock: VirtualClock, tmp_path: Path
) -> None:
    await aged.load(chunks(ARCHIVE))
    await clock.advance(10)
    other = await aged.import_tar(chunks(OTHER), ref="other")
    await clock.advance(10)
    await aged.prepare_root("c", BUILT.id)
    assert (await aged.free(0, spare={}, unused_for=0)).deleted == ()
    await aged.remove_root("c")
    await aged.free(0, spare={}, unused_for=0)
    choice = (OverlayDriver(), "for tests")
    again = ImageStore(tmp_path / "images", driver_choice=choice, source=RegistryClient(), clock=clock)
    await again.open()
    try:
        assert (await again.free(1, spare={}, unused_for=0)).deleted == (other.id,)
    finally:
        await again.close()


async def test_image_under_a_root_is_never_freed(aged: ImageStore, clock: VirtualClock) -> None:
    record = (await aged.load(chunks(ARCHIVE)))[0]
    await aged.prepare_root("c", record.id)
    await clock.advance(DAY)
    assert (await aged.free(1 << 40, spare={}, unused_for=0)).deleted == ()
    await aged.remove_root("c")
    await clock.advance(DAY)
    assert (await aged.free(1 << 40, spare={}, unused_for=0)).deleted == (record.id,)


async def test_prune_spares_by_reference_with_the_reason_and_takes_what_is_chosen(aged: ImageStore) -> None:
    await aged.load(chunks(ARCHIVE))
    await aged.load(chunks(docker_archive(image([TOP], config={"Labels": {"a": "b"}}), [TOP], names=["l:1"])))
    removed = await aged.prune(all_unused=True, spare={"app:1": "service web"})
    assert len(removed.deleted) == 1 and removed.spared == {"docker.io/library/app:1": "service web"}
    chosen = await aged.prune(all_unused=True, chosen=lambda record: "a" in record.config.labels)
    assert chosen.deleted == () and chosen.spared == {}


async def test_usage_counts_shared_layers_once(aged: ImageStore) -> None:
    await aged.load(chunks(ARCHIVE))
    one = aged.usage({})
    assert (one.total, one.active) == (1, 0) and one.size == one.reclaimable > 0
    await aged.import_tar(chunks(BASE), ref="base")  # the archive's own first layer
    assert aged.usage({}).size == one.size
    assert 0 < aged.usage({"base": "kept"}).reclaimable < one.size
    await aged.prepare_root("c", BUILT.id)
    assert aged.usage({}).reclaimable == 0 and aged.usage({}).active == 1


async def test_saved_layer_that_rotted_is_told(aged: ImageStore, tmp_path: Path) -> None:
    await aged.load(chunks(ARCHIVE))
    blob = tmp_path / "images/layers" / layers_on_disk(tmp_path)[0] / "blob"
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    with pytest.raises(Damaged, match="does not match its digest"):
        async for _ in aged.save(["app:1"]):
            pass
