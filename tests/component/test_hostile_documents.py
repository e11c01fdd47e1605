"""Manifests and configurations that mean harm, where they come in: refused in one line, the disk as before,
within 256 MiB and 10 s of the processor. `tests/support/hostileinputs.py` tells of others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from image.drivers.vfs import VfsDriver
from image.registry.client import RegistryClient
from image.store import ImageStore
from model.errors import FlotaError
from tests.support.images import CONFIG, INDEX, MANIFEST, Built, chunks, descriptor, image, member, tar
from tests.support.images import docker_archive as docker
from tests.support.images import oci_archive as oci
from tests.support.layerplaces import MOST_MEMORY, MOST_TIME
from tests.support.registry import FakeRegistry, serving
from tests.support.waiting import until
from tests.unit.test_image_manifest import BAD_CONFIGS, BAD_MANIFESTS

LAYER = tar(member("x", b"x"))
GOOD = image([LAYER])
MOST = 4 << 20


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with serving(FakeRegistry()) as served:
        yield served


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ImageStore]:
    """With an image in it, and a victim beside it."""
    (tmp_path / "victim").mkdir(mode=0o711)
    (tmp_path / "victim/file").write_text("untouched")
    choice = (VfsDriver(), "for tests")
    store = ImageStore(tmp_path / "images", driver_choice=choice, source=RegistryClient())
    await store.open()
    await store.load(chunks(docker(GOOD, [LAYER], names=["good:1"])))
    yield store
    await store.close()


async def census(top: Path) -> list[tuple[Any, ...]]:
    """All that there is, but for times of folders, in which files come and go."""
    await until(lambda: os.listdir(top / "images/trash") == [], deadline=30)
    found = []
    for path in sorted(top.rglob("*")):
        status = os.lstat(path)
        content, at = (path.read_bytes(), status.st_mtime_ns) if path.is_file() else (b"", 0)
        found.append((str(path), status.st_ino, status.st_mode, at, content))
    return found


def with_config(config: bytes) -> Built:
    raw = {**json.loads(GOOD.manifest), "config": descriptor(config, CONFIG)}
    built = Built(manifest=json.dumps(raw).encode(), config=config)
    built.blobs = {**GOOD.blobs, built.id: config}
    return built


def one_line(error: FlotaError) -> None:
    assert error.code in ("damaged", "unsupported"), error
    assert "\n" not in str(error) and len(str(error)) < 600


async def test_hostile_manifest_of_a_registry_leaves_the_disk_as_it_was(
    store: ImageStore, registry: FakeRegistry, tmp_path: Path
) -> None:
    """B63-B72."""
    registry.blobs |= GOOD.blobs
    before = await census(tmp_path)
    for name, data in BAD_MANIFESTS.items():
        registry.manifests["bad"] = (INDEX if b'"manifests"' in data else MANIFEST, data)
        with pytest.raises(FlotaError) as refused:
            await store.pull(f"{registry.host}/app:bad")
        one_line(refused.value)
        assert await census(tmp_path) == before, name


async def test_hostile_configuration_of_a_registry_or_an_archive_leaves_the_disk_as_it_was(
    store: ImageStore, registry: FakeRegistry, tmp_path: Path
) -> None:
    """B67, B70."""
    before = await census(tmp_path)
    for name, data in BAD_CONFIGS.items():
        built = with_config(data)
        registry.push(built, "bad")
        for coming in (docker(built, [LAYER], names=["bad:1"]), oci(built, name="bad:1"), None):
            with pytest.raises(FlotaError) as refused:
                await (store.load(chunks(coming)) if coming else store.pull(f"{registry.host}/app:bad"))
            one_line(refused.value)
            assert await census(tmp_path) == before, name


@pytest.mark.parametrize("size", [1, 1 << 30])
@pytest.mark.parametrize("part", ["config", "layer"])
async def test_part_of_another_size_than_it_was_announced_with_is_refused(
    store: ImageStore, registry: FakeRegistry, tmp_path: Path, part: str, size: int
) -> None:
    """B57."""
    before = await census(tmp_path)
    other = image([tar(member("y", b"y"))])
    raw = json.loads(other.manifest)
    (raw["config"] if part == "config" else raw["layers"][0])["size"] = size
    built = Built(manifest=json.dumps(raw).encode(), config=other.config, blobs=other.blobs)
    registry.push(built, "bad")
    for coming in (oci(built, name="bad:1"), None):
        with pytest.raises(FlotaError) as refused:
            await (store.load(chunks(coming)) if coming else store.pull(f"{registry.host}/app:bad"))
        assert "\n" not in str(refused.value)
        assert await census(tmp_path) == before, coming is None


class Moving(FakeRegistry):
    """Its tag is another image each time that it is asked for."""

    async def handle(self, request: Any) -> Any:
        reply = await super().handle(request)
        if request.path.endswith("/manifests/1"):
            self.push(image([LAYER], config={"Labels": {"asked": str(len(self.requests))}}), "1")
        return reply


async def test_tag_that_moves_between_requests_is_one_image_by_its_own_digest(store: ImageStore) -> None:
    """B73."""
    moving = Moving()
    moving.push(image([LAYER], config={"Labels": {"asked": "0"}}), "1")
    async with serving(moving) as registry:
        for _ in range(3):
            record = await store.pull(f"{registry.host}/app:1")
            [name] = [one for one in record.digests if one.startswith(registry.host)]
            manifest = json.loads(registry.manifests[name.partition("@")[2]][1])
            assert manifest["config"]["digest"] == record.id
            assert (await store.pull(name)).id == record.id


# -- what it costs ----------------------------------------------------------------------------------
def filled(begin: bytes, piece: bytes, end: bytes, join: bytes = b",") -> bytes:
    """As many pieces as go into the largest document."""
    count = (MOST - len(begin) - len(end)) // (len(piece) + len(join))
    return begin + join.join([piece] * count) + end


def keys(begin: bytes, end: bytes) -> bytes:
    parts = b",".join(b'"%x":""' % number for number in range(330_000))
    return begin + parts[: parts.rindex(b",", 0, MOST - len(begin) - len(end))] + end


_ENTRY = json.dumps(json.loads(GOOD.manifest)["layers"][0]).encode()
_HEAD = GOOD.manifest[:-1]
_RUN = GOOD.config[:-1]
LARGEST: dict[str, bytes] = {
    "lists": filled(_HEAD + b',"x":[', b"[]", b"]}"),
    "objects": filled(_HEAD + b',"x":[', b"{}", b"]}"),
    "objects of one key": filled(_HEAD + b',"x":[', b'{"a":1}', b"]}"),
    "deep lists": b"[" * MOST,
    "deep objects": b'{"a":' * (MOST // 5),
    "words": filled(_HEAD + b',"x":[', b'"ab"', b"]}"),
    "numbers": filled(_HEAD + b',"x":[', b"1.5", b"]}"),
    "digits": filled(_HEAD + b',"x":', b"9", b"}", b""),
    "digits behind a point": filled(_HEAD + b',"x":0.', b"7", b"}", b""),
    "escapes": filled(_HEAD + b',"x":"', b"\\u0041", b'"}', b""),
    "keys": keys(_HEAD + b',"annotations":{', b"}}"),
    "layers": filled(b'{"schemaVersion":2,"config":' + _ENTRY + b',"layers":[', _ENTRY, b"]}"),
    "manifests": filled(b'{"schemaVersion":2,"manifests":[', _ENTRY, b"]}"),
    "blanks": filled(_HEAD, b" ", b"}", b""),
    "environment": filled(_RUN + b',"config":{"Env":[', b'"A=1"', b"]}}"),
    "labels": keys(_RUN + b',"config":{"Labels":{', b"}}}"),
    "volumes": keys(_RUN + b',"config":{"Volumes":{', b"}}}"),
    "history": filled(_RUN + b',"history":[', b"{}", b"]}"),
    "layers of a configuration": filled(b'{"rootfs":{"diff_ids":[', b'"%s"' % GOOD.digest.encode(), b"]}}"),
    "time of creation": filled(_RUN + b',"created":"', b"2024-01-01", b'"}', b""),
    "workdir": filled(b'{"rootfs":{"diff_ids":[]},"config":{"WorkingDir":"', b"a/../", b'"}}', b""),
}
_MEASURED = """
import json, sys, time
from image.indexes import entries_of, linked
from image.manifest import parse_configuration, parse_document
from model.errors import FlotaError

data, said = open(sys.argv[1], "rb").read(), []
for parse in (parse_document, parse_configuration, lambda data: linked(data, ""), entries_of):
    began = time.process_time()
    try:
        parse(data)
    except FlotaError as error:
        assert "\\n" not in str(error)
    said.append(time.process_time() - began)
[peak] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")]
print(json.dumps([max(said), int(peak)]))
"""


@pytest.mark.parametrize("data", LARGEST.values(), ids=LARGEST)
def test_largest_document_of_any_kind_costs_bounded_memory_and_time(tmp_path: Path, data: bytes) -> None:
    """B64, B67, B70: read by each that could be given it."""
    assert len(data) <= MOST
    (tmp_path / "document").write_bytes(data)
    words = [sys.executable, "-c", _MEASURED, str(tmp_path / "document")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    spent, peak = json.loads(done.stdout)
    assert spent < MOST_TIME and peak < MOST_MEMORY, (spent, peak)


_CROWD = """
import asyncio, json, sys, tempfile
from pathlib import Path
from image.drivers.vfs import VfsDriver
from image.registry.client import RegistryClient
from image.store import ImageStore
from model.errors import FlotaError
from tests.support.images import CONFIG, MANIFEST, Built, chunks, descriptor, image, member, oci_archive, tar
from tests.support.registry import FakeRegistry, serving

items = b'"x":[' + b",".join([b"{}"] * 1_390_000) + b"]"
manifest, config = b'{"schemaVersion":2,' + items + b"}", b"{" + items + b',"rootfs":{"diff_ids":[1]}}'
good = image([tar(member("x", b"x"))])
raw = {**json.loads(good.manifest), "config": descriptor(config, CONFIG)}
built = Built(manifest=json.dumps(raw).encode(), config=config)
built.blobs = {**good.blobs, built.id: config}

async def main(place):
    refused = 0
    store = ImageStore(place / "images", driver_choice=(VfsDriver(), "test"), source=RegistryClient())
    await store.open()
    async with serving(FakeRegistry()) as registry:
        registry.manifests["manifest"] = (MANIFEST, manifest)
        registry.push(built, "config")
        for number in range(9):
            try:
                if number % 3 == 2:
                    await store.load(chunks(oci_archive(built)))
                else:
                    await store.pull(f"{registry.host}/app:{'manifest' if number % 3 else 'config'}")
            except FlotaError:
                refused += 1
    await store.close()
    [peak] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")]
    print(refused, peak)

with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(Path(folder)))
"""


def test_large_documents_one_after_another_leave_nothing_of_those_before() -> None:
    """Each takes a hundred MiB while it is read."""
    done = subprocess.run([sys.executable, "-c", _CROWD], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    refused, peak = done.stdout.split()
    assert refused == "9" and int(peak) < MOST_MEMORY + (64 << 10)
