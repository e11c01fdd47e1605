"""The image store on a real file system: what it keeps, shares, refuses, and what a crash leaves of it."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from image.drivers.overlay import OverlayDriver
from image.registry.client import RegistryClient
from image.registry.source import NoSource
from image.store import ImageStore
from model.errors import (
    Ambiguous,
    Damaged,
    Exhausted,
    InUse,
    InvalidInput,
    NotFound,
    Unsupported,
)
from model.image import Progress
from tests.support.images import chunks, docker_archive, folder, image, index, member, oci_archive, tar
from tests.support.registry import FakeRegistry, serving
from tests.support.waiting import until

pytestmark = pytest.mark.kernel

BASE = tar(folder("etc"), member("etc/issue", b"base"), member("gone", b"x"))
TOP = tar(member("etc/motd", b"top"), member(".wh.gone"))
OTHER = tar(member("other", b"y"))
BUILT = image([BASE, TOP], config={"Cmd": ["/bin/sh"], "Env": ["A=1"]})
ARCHIVE = docker_archive(BUILT, [BASE, TOP], names=["app:1"])


def made(root: Path) -> ImageStore:
    choice = (OverlayDriver(), "for tests")
    return ImageStore(root / "images", driver_choice=choice, source=RegistryClient())


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ImageStore]:
    store = made(tmp_path)
    await store.open()
    yield store
    for root in store.roots():
        await store.remove_root(root.container)
    await store.close()


@contextlib.asynccontextmanager
async def reopened(root: Path) -> AsyncIterator[ImageStore]:
    """A second store on the same folder, as after a crash of the first."""
    store = made(root)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def layers_on_disk(root: Path) -> list[str]:
    return sorted(os.listdir(root / "images/layers"))


def disk_usage(path: Path) -> int:
    done = subprocess.run(["du", "-sxk", path], capture_output=True, check=True)
    return int(done.stdout.split()[0]) << 10


def tree(path: str) -> dict[str, bytes]:
    base = Path(path)
    return {p.relative_to(base).as_posix(): p.read_bytes() for p in base.rglob("*") if p.is_file()}


# -- import, load ---------------------------------------------------------------------------------------
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


# -- names, removal -------------------------------------------------------------------------------------
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


# -- pull -----------------------------------------------------------------------------------------------
@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    fake = FakeRegistry()
    fake.push(BUILT, "1")
    async with serving(fake) as served:
        yield served


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


# -- roots ----------------------------------------------------------------------------------------------
async def test_roots_of_one_image_are_private_and_cheap(store: ImageStore, tmp_path: Path) -> None:
    [record] = await store.load(chunks(ARCHIVE))
    for number in range(20):
        await store.prepare_root(f"c{number}", record.id)
        await store.mount_root(f"c{number}")
    paths = [root.path for root in store.roots()]
    Path(paths[0], "etc/issue").write_text("mine")
    assert [Path(path, "etc/issue").read_text() for path in paths[1:3]] == ["base", "base"]
    assert not any(Path(path, "gone").exists() for path in paths)
    assert await asyncio.to_thread(disk_usage, tmp_path / "images/roots") < 20 * (64 << 10)
    assert await store.root_usage("c0") > await store.root_usage("c1")


async def test_root_outlives_a_crash_of_the_agent(store: ImageStore, tmp_path: Path) -> None:
    record = await store.import_tar(chunks(BASE), ref="a")
    await store.prepare_root("c", record.id)
    root = await store.mount_root("c")
    Path(root.path, "new").write_text("written")
    async with reopened(tmp_path) as second:
        assert second.roots() == [root]
        assert await second.mount_root("c") == root
        assert Path(root.path, "new").read_text() == "written"
        await second.unmount_root("c")
        assert os.listdir(root.path) == []
        await second.mount_root("c")
        assert Path(root.path, "new").read_text() == "written"


async def test_root_calls_may_be_repeated_and_miss(store: ImageStore) -> None:
    record = await store.import_tar(chunks(BASE))
    for _ in range(2):
        await store.prepare_root("c", record.id)
        await store.mount_root("c")
    for _ in range(2):
        await store.unmount_root("c")
    for _ in range(2):
        await store.remove_root("c")
    with pytest.raises(NotFound):
        await store.mount_root("c")
    with pytest.raises(NotFound):
        await store.prepare_root("c", "sha256:" + "0" * 64)


async def test_root_that_was_half_made_goes_at_start(store: ImageStore, tmp_path: Path) -> None:
    roots = tmp_path / "images/roots"
    (roots / "half/upper").mkdir(parents=True)
    (roots / "empty").mkdir()
    (roots / "empty/root.json").touch()
    async with reopened(tmp_path) as second:
        assert second.roots() == []
        assert os.listdir(roots) == []


async def test_root_whose_record_is_damaged_is_not_thrown_away(store: ImageStore, tmp_path: Path) -> None:
    record = await store.import_tar(chunks(BASE))
    await store.prepare_root("c", record.id)
    path = tmp_path / "images/roots/c/root.json"
    good = path.read_bytes()
    path.write_bytes(b"{damaged")
    with pytest.raises(Damaged, match="Move"):
        await made(tmp_path).open()
    path.write_bytes(good)


async def test_root_works_again_when_its_lost_layer_is_fetched_anew(
    store: ImageStore, tmp_path: Path
) -> None:
    record = await store.import_tar(chunks(BASE), ref="a")
    await store.prepare_root("c", record.id)
    shutil.rmtree(tmp_path / "images/layers" / layers_on_disk(tmp_path)[0])
    async with reopened(tmp_path) as second:
        assert second.list() == []
        with pytest.raises(Damaged, match="missing"):
            await second.mount_root("c")
        await second.import_tar(chunks(BASE), ref="a")
        root = await second.mount_root("c")
        assert tree(root.path)["etc/issue"] == b"base"


# -- a full disk ----------------------------------------------------------------------------------------
@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An ext4 of 100 MiB, on which the store keeps 64 free."""
    disk, place = tmp_path / "disk", tmp_path / "small"
    place.mkdir()
    with open(disk, "wb") as file:
        file.truncate(100 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-N", "3000", disk], check=True)
    subprocess.run(["mount", "-o", "loop", disk, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def free(place: Path) -> tuple[int, int]:
    status = os.statvfs(place)
    return status.f_bavail * status.f_frsize, status.f_favail


@pytest.mark.parametrize(
    "make",
    [
        lambda: gzip.compress(tar(member("zeros", bytes(90 << 20))), 1),
        lambda: tar(member("noise", os.urandom(1 << 20) * 150)),
        lambda: gzip.compress(tar(*(member(f"f{n}") for n in range(5000))), 1),
    ],
    ids=["unpacks to too much", "does not fit as it comes", "too many files"],
)
async def test_full_disk_is_said_and_given_back(small_disk: Path, make: Callable[[], bytes]) -> None:
    store = made(small_disk)
    await store.open()
    try:
        record = await store.import_tar(chunks(BASE), ref="good")
        before = free(small_disk)
        with pytest.raises(Exhausted):
            await store.import_tar(chunks(make()), ref="bad")
        assert store.list() == [record]
        await until(lambda: os.listdir(small_disk / "images/trash") == [], deadline=10)
        await until(lambda: free(small_disk)[0] > before[0] - (1 << 20), deadline=10)
        assert free(small_disk)[1] >= before[1] - 5
        await store.import_tar(chunks(OTHER), ref="after")
    finally:
        await store.close()


# -- crashes --------------------------------------------------------------------------------------------
async def test_half_made_and_unused_layers_go_at_start(store: ImageStore, tmp_path: Path) -> None:
    await store.load(chunks(ARCHIVE))
    layers = tmp_path / "images/layers"
    (layers / "tmp-9/fs").mkdir(parents=True)
    (layers / "9/fs").mkdir(parents=True)
    shutil.copytree(layers / "1", layers / "77")
    kept = layers_on_disk(tmp_path)[:2]
    async with reopened(tmp_path) as second:
        assert len(second.list()) == 1
        assert layers_on_disk(tmp_path) == sorted(set(kept) - {"77", "9"})


async def test_damaged_marker_drops_the_layer_and_its_images(store: ImageStore, tmp_path: Path) -> None:
    await store.load(chunks(ARCHIVE))
    (tmp_path / "images/layers/2/link").write_bytes(b"\0" * 40)
    async with reopened(tmp_path) as second:
        assert second.list() == []
        await second.load(chunks(ARCHIVE))
        assert len(second.list()) == 1


async def test_damaged_catalog_is_named_and_left_alone(store: ImageStore, tmp_path: Path) -> None:
    await store.import_tar(chunks(BASE))
    path = tmp_path / "images/images.json"
    path.write_bytes(b"{")
    with pytest.raises(Damaged, match=r"images\.json"):
        await made(tmp_path).open()
    assert path.read_bytes() == b"{"


@pytest.mark.parametrize("steps", [1, 3, 8, 20, 40])
async def test_load_that_is_cancelled_leaves_nothing_half_made(
    store: ImageStore, tmp_path: Path, steps: int
) -> None:
    task = asyncio.ensure_future(store.load(chunks(ARCHIVE, 512)))
    for _ in range(steps):
        await asyncio.sleep(0.002)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    complete = [record.id for record in store.list()]
    assert complete in ([], [BUILT.id])
    if not complete:
        await until(lambda: layers_on_disk(tmp_path) == [], deadline=5)
    assert os.listdir(tmp_path / "images/tmp") == []


KILLED = """
import asyncio, sys
from pathlib import Path
from tests.kernel.test_image_store import ARCHIVE, BASE, OTHER, chunks, made
async def main():
    store = made(Path(sys.argv[1]))
    await store.open()
    print("open", flush=True)
    while True:
        await store.load(chunks(ARCHIVE))
        await store.import_tar(chunks(OTHER), ref="other")
        print("there", flush=True)
        await store.remove("app:1")
        await store.remove("other")
asyncio.run(main())
"""


def killed_store(root: Path, after: float) -> None:
    """A process that loads and removes images without end, killed after so many seconds."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(root)], stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"open\n"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(after)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("after", [0.05, 0.15, 0.3, 0.45, 0.7])
async def test_store_killed_at_any_moment_opens_with_whole_images_only(tmp_path: Path, after: float) -> None:
    await asyncio.to_thread(killed_store, tmp_path, after)
    async with reopened(tmp_path) as store:
        for record in store.list():
            await store.prepare_root("c", record.id)
            root = await store.mount_root("c")
            wanted = {"other"} if len(record.layers) == 1 else {"etc/issue", "etc/motd"}
            assert set(tree(root.path)) == wanted
            await store.remove_root("c")
        images = {len(record.layers) for record in store.list()}
        assert len(layers_on_disk(tmp_path)) == sum(images)
        await store.load(chunks(ARCHIVE))
        await until(lambda: os.listdir(tmp_path / "images/trash") == [], deadline=5)
