"""What the image store imports, loads and refuses, and what its names lead to."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from image.store import ImageStore
from model.errors import (
    Ambiguous,
    Damaged,
    InUse,
    InvalidInput,
    NotFound,
)
from model.image import Progress
from tests.support.images import chunks, docker_archive, folder, image, member, oci_archive, tar
from tests.support.imagestores import (
    ARCHIVE,
    BASE,
    BUILT,
    OTHER,
    TOP,
    layers_on_disk,
)
from tests.support.waiting import until

pytestmark = pytest.mark.kernel


async def test_imported_tar_is_an_image_of_one_layer(store: ImageStore) -> None:
    record = await store.import_tar(
        chunks(BASE), ref="base", message="hello", changes=["CMD sh", "ENV A=1", "LABEL x=y"]
    )
    assert store.find("base") == store.find(record.id) == store.find(record.id[7:15]) == record
    assert record.names == ("docker.io/library/base:latest",)
    assert (record.config.cmd, record.config.env) == (("/bin/sh", "-c", "sh"), ("A=1",))
    assert (record.history[0].comment, len(record.layers)) == ("hello", 1)
    assert record.size == len(b"base") + len(b"x")


async def test_equal_imports_are_one_image(store: ImageStore, tmp_path: Path) -> None:
    first = await store.import_tar(chunks(BASE), ref="a")
    second = await store.import_tar(chunks(gzip.compress(BASE)), ref="b")
    assert first.id == second.id and len(store.list()) == 1
    assert len(layers_on_disk(tmp_path)) == 1


@pytest.mark.parametrize("change", ["RUN x", "CMD", "", "LABEL =x", "ENV 'a"])
async def test_import_with_a_bad_change_does_nothing(store: ImageStore, change: str) -> None:
    with pytest.raises(InvalidInput):
        await store.import_tar(chunks(BASE), changes=[change])
    assert store.list() == []


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gzip", "zstd"])
@pytest.mark.parametrize("data", [ARCHIVE, oci_archive(BUILT, name="app:1")], ids=["docker", "oci"])
async def test_archive_of_either_kind_is_loaded(
    store: ImageStore, data: bytes, pack: Callable[[bytes], bytes]
) -> None:
    lines: list[Progress] = []
    [record] = await store.load(chunks(pack(data)), progress=lines.append)
    assert record.id == BUILT.id
    assert record.names == ("docker.io/library/app:1",)
    assert lines[-1].status == "Complete"


async def test_archive_loaded_twice_shares_everything(store: ImageStore, tmp_path: Path) -> None:
    await store.load(chunks(ARCHIVE))
    await store.load(chunks(ARCHIVE))
    assert len(store.list()) == 1 and len(layers_on_disk(tmp_path)) == 2


async def test_archive_with_one_damaged_image_changes_nothing(store: ImageStore, tmp_path: Path) -> None:
    files = {"c1": BUILT.config, "l1": BASE, "l2": TOP, "c2": image([OTHER]).config, "l3": OTHER + b"damaged"}
    entries = [
        {"Config": "c1", "RepoTags": ["one"], "Layers": ["l1", "l2"]},
        {"Config": "c2", "RepoTags": ["two"], "Layers": ["l3"]},
    ]
    data = tar(
        *(member(n, d) for n, d in files.items()), member("manifest.json", json.dumps(entries).encode())
    )
    with pytest.raises(Damaged, match="digest"):
        await store.load(chunks(data))
    assert store.list() == []
    await until(lambda: layers_on_disk(tmp_path) == [], deadline=5)
    assert os.listdir(tmp_path / "images/tmp") == []


BAD_ARCHIVES = {
    "root file system": tar(folder("etc")),
    "no tar": b"hello" * 1000,
    "empty": b"",
    "no list": tar(member("manifest.json", b"{}")),
    "empty list": tar(member("manifest.json", b"[]")),
    "layers no list": tar(
        member("c", BUILT.config), member("manifest.json", b'[{"Config": "c", "Layers": 7}]')
    ),
    "no such file": tar(member("manifest.json", b'[{"Config": "gone", "Layers": []}]')),
    "climbing name": tar(member("manifest.json", b'[{"Config": "../../../etc/passwd", "Layers": []}]')),
    "link loop": tar(
        *(member(a, type=b"2", linkname=b) for a, b in (("c", "d"), ("d", "c"))),
        member("manifest.json", b'[{"Config": "c", "Layers": []}]'),
    ),
    "fewer layers": docker_archive(BUILT, [BASE]),
    "layers swapped": docker_archive(BUILT, [TOP, BASE]),
    "bad name": docker_archive(BUILT, [BASE, TOP], names=["UPPER CASE"]),
    "cut": ARCHIVE[:3000],
    "cut gzip": gzip.compress(ARCHIVE)[:-300],
    "oci blob damaged": oci_archive(BUILT).replace(b'"amd64"', b'"amd65"'),
}


@pytest.mark.parametrize("data", BAD_ARCHIVES.values(), ids=BAD_ARCHIVES)
async def test_bad_archive_is_refused_and_changes_nothing(
    store: ImageStore, data: bytes, tmp_path: Path
) -> None:
    with pytest.raises(Damaged) as caught:
        await store.load(chunks(data))
    assert "\n" not in str(caught.value)
    assert store.list() == []
    await until(lambda: layers_on_disk(tmp_path) == [], deadline=5)
    await until(lambda: os.listdir(tmp_path / "images/trash") == [], deadline=5)


async def test_name_moves_to_the_image_that_took_it_last(store: ImageStore) -> None:
    first = await store.import_tar(chunks(BASE), ref="app")
    second = await store.import_tar(chunks(OTHER), ref="app")
    assert store.find("app").id == second.id
    assert store.find(first.id).names == ()


async def test_prefix_that_fits_two_images_is_ambiguous(store: ImageStore) -> None:
    ids: dict[str, int] = {}
    for number in range(17):
        record = await store.import_tar(chunks(tar(member(f"f{number}"))))
        ids[record.id[7]] = ids.get(record.id[7], 0) + 1
    digit = next(digit for digit, count in ids.items() if count > 1)
    with pytest.raises(Ambiguous):
        store.find(digit)


async def test_removal_of_one_name_keeps_the_image(store: ImageStore) -> None:
    record = await store.import_tar(chunks(BASE), ref="a")
    await store.tag("a", "b:2")
    removed = await store.remove("a")
    assert (removed.untagged, removed.deleted) == (("docker.io/library/a:latest",), ())
    removed = await store.remove("b:2")
    assert removed.deleted == (record.id,)
    with pytest.raises(NotFound):
        store.find(record.id)


async def test_removal_by_id_of_an_image_with_two_names_needs_force(store: ImageStore) -> None:
    record = await store.import_tar(chunks(BASE), ref="a")
    await store.tag("a", "b")
    with pytest.raises(InUse, match="2 names"):
        await store.remove(record.id)
    assert len((await store.remove(record.id, force=True)).untagged) == 2


async def test_layers_stay_until_the_last_image_is_gone(store: ImageStore, tmp_path: Path) -> None:
    await store.load(chunks(ARCHIVE))
    await store.load(chunks(docker_archive(image([BASE]), [BASE], names=["base"])))
    await store.remove("app:1")
    assert len(layers_on_disk(tmp_path)) == 1
    await store.remove("base")
    assert layers_on_disk(tmp_path) == []
    await until(lambda: os.listdir(tmp_path / "images/trash") == [], deadline=5)


async def test_image_under_a_container_can_not_be_removed(store: ImageStore) -> None:
    record = await store.import_tar(chunks(BASE), ref="a")
    await store.prepare_root("c1", record.id)
    with pytest.raises(InUse, match="c1"):
        await store.remove("a", force=True)
    assert (await store.prune(all_unused=True)).deleted == ()
    await store.remove_root("c1")
    assert (await store.prune()).deleted == ()
    assert (await store.prune(all_unused=True)).deleted == (record.id,)
