"""Attestations of built images on a real store: kept, saved, pushed, forgotten; roots of enemies listed."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from image.sbom.scanner import Scanner
from image.store import ImageStore
from tests.support.buildstore import StoreLab
from tests.support.imagestores import documents, reopened
from tests.support.registry import FakeRegistry

pytestmark = pytest.mark.kernel
INDEX = "application/vnd.oci.image.index.v1+json"


def put(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Path(path).write_text(text)


@pytest.fixture
async def scanner() -> AsyncIterator[Scanner]:
    made = Scanner()
    yield made
    await made.close()


def lab(store: ImageStore, scanner: Scanner) -> StoreLab:
    stanza = "Package: tool\nStatus: install ok installed\nVersion: 1\n"
    it = StoreLab(store, install=lambda root: put(f"{root}/var/lib/dpkg/status", stanza))
    it.parts = dataclasses.replace(it.parts, scan=scanner.scan)
    return it


TEXT = "FROM scratch\nRUN install\n"


async def test_attested_image_is_saved_with_its_index_and_loads_elsewhere(
    store: ImageStore, scanner: Scanner, tmp_path: Path
) -> None:
    done = await lab(store, scanner).build(TEXT, names=("app:1",), provenance="max", sbom=True)
    data = b"".join([piece async for piece in store.save(["app:1"])])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        files = {one.name: tar.extractfile(one).read() for one in tar if one.isfile()}  # type: ignore[union-attr]
    (entry,) = json.loads(files["index.json"])["manifests"]
    assert (entry["mediaType"], entry["digest"]) == (INDEX, done.digest)

    def blob(digest: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(files[f"blobs/sha256/{digest[7:]}"])
        return found

    image, paper = json.loads(files[f"blobs/sha256/{done.digest[7:]}"])["manifests"]
    assert paper["annotations"]["vnd.docker.reference.digest"] == image["digest"] == done.images[0].digest
    layers = json.loads(files[f"blobs/sha256/{paper['digest'][7:]}"])["layers"]
    spdx, slsa = (blob(layer["digest"]) for layer in layers)
    names = [one["name"] for one in spdx["predicate"]["packages"]]  # type: ignore[index]
    assert names == ["app:1", "tool"] and slsa["predicateType"] == "https://slsa.dev/provenance/v0.2"
    assert json.loads(files["manifest.json"])[0]["RepoTags"] == ["app:1"]
    async with reopened(tmp_path / "other") as other:
        (loaded,) = await other.load(store.save(["app:1"]))
        assert loaded.id == done.images[0].image


async def test_attested_image_is_pushed_whole_also_after_a_restart_and_goes_whole(
    store: ImageStore, scanner: Scanner, registry: FakeRegistry, tmp_path: Path
) -> None:
    name = f"{registry.host}/made:1"
    done = await lab(store, scanner).build(TEXT, names=(name,), provenance="min", sbom=True)
    await store.close()
    async with reopened(tmp_path) as again:
        record = await again.push(name)
        assert registry.manifests["1"][0] == INDEX and f"{registry.host}/made@{done.digest}" in record.digests
        _, paper = json.loads(registry.manifests["1"][1])["manifests"]
        manifest = json.loads(registry.manifests[paper["digest"]][1])
        assert {one["digest"] for one in (*manifest["layers"], manifest["config"])} <= registry.blobs.keys()
        await again.remove(name)
        assert documents(tmp_path) == []
        pulled = await again.pull(name)
        assert pulled.id == done.images[0].image


async def test_several_platforms_are_one_archive(store: ImageStore, scanner: Scanner) -> None:
    it = lab(store, scanner)
    it.runner.context["a"] = b"1"
    both = ("linux/amd64", "linux/arm64")
    done = await it.build("FROM scratch\nCOPY a /\n", platforms=both, provenance="min")
    whole = store.save([done.images[0].image], names=("docker.io/library/x:1",), whole=True)
    with tarfile.open(fileobj=io.BytesIO(b"".join([piece async for piece in whole]))) as tar:
        names = tar.getnames()
        file = tar.extractfile(f"blobs/sha256/{done.digest[7:]}")
        assert file is not None
        members = json.loads(file.read())["manifests"]
    assert len(members) == 4 and "manifest.json" not in names
    assert {f"blobs/sha256/{one['digest'][7:]}" for one in members} <= set(names)


async def test_root_of_an_enemy_is_listed_without_a_look_outside(scanner: Scanner, tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    put(f"{outside}/status", "Package: canary\nStatus: install ok installed\nVersion: 1\n")
    put(f"{outside}/x.dist-info/METADATA", "Name: canary\nVersion: 1\n")
    for folder in ("var/lib/dpkg", "var/lib/rpm", "lib/apk/db", "etc"):
        (root / folder).mkdir(parents=True)
    (root / "var/lib/dpkg/status").symlink_to(outside / "status")
    (root / "linked").symlink_to(outside)
    os.mkfifo(root / "lib/apk/db/installed")
    os.mknod(root / "etc/os-release", 0o600 | 0o020000, os.makedev(1, 5))
    put(f"{root}/var/lib/rpm/rpmdb.sqlite", "no database")
    put(f"{root}/a/b.dist-info/METADATA", "Name: own\nVersion: 2\n")
    os.mkfifo(root / "a/PKG-INFO.egg-info")
    found = await scanner.scan(str(root))
    assert [one.name for one in found.packages] == ["own"]
    assert len(found.notes) == 1 and "rpmdb.sqlite" in found.notes[0]
