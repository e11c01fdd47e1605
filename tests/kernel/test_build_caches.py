"""Caches that a build imports and exports: through Debian's registry, a folder, and the image itself."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import pytest

from aio.clock import SystemClock
from image.base import nobody
from image.build.cacheformat import CONFIG
from image.build.cacheways import CacheWays
from image.build.engine import build
from image.build.fake import FakeSession
from image.build.telling import Teller
from image.manifest import Descriptor
from image.platforms import host_platform
from image.store import ImageStore
from model.build import BuildRequest, BuildWarning, CacheWay, cache_context
from model.errors import Damaged, FlotaError, InvalidInput, NotFound
from tests.support.buildstore import StoreLab
from tests.support.dockerregistry import docker_registry
from tests.support.imagestores import reopened

pytestmark = pytest.mark.kernel
FILE = "FROM scratch AS other\nRUN one\nFROM scratch\nRUN two\nCOPY --from=other /one /one\nRUN three\n"
ALL = ["one", "two", "copy /one", "three"]


class ClientFolder:
    """The client's, by what the host calls it."""

    def __init__(self, folders: dict[str, Path]) -> None:
        self.folders = folders
        self.copied: list[str] = []

    async def read(self, context: str, path: str, limit: int) -> bytes:
        found = self.folders[context] / path
        if not found.exists():
            raise NotFound(f"{path} is not there")
        return found.read_bytes()

    async def copy(self, context: str, path: str, layer: Descriptor, target: Path) -> None:
        self.copied.append(path)
        shutil.copyfile(self.folders[context] / path, target)
        if "sha256:" + hashlib.sha256(target.read_bytes()).hexdigest() != layer.digest:
            raise Damaged(f"{path} is not what its name says")


class Client(FakeSession):
    """What is sent is unpacked into `folder`."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.numbers: list[int] = []

    async def send(self, output: int, data: AsyncIterator[bytes]) -> None:
        self.numbers.append(output)
        whole = b"".join([piece async for piece in data])
        with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
            archive.extractall(self.folder)


class Host:
    def __init__(self, store: ImageStore, folder: Path) -> None:
        self.store = store
        self.lab = StoreLab(store, **{name: lambda root, n=name: put(f"{root}/{n}") for name in ALL})
        self.client = Client(folder)
        self.folder = ClientFolder({cache_context(0): folder})

    async def build(self, text: str = FILE, **wishes: Any) -> str:
        request = BuildRequest(dockerfile=text.encode(), **wishes)
        clock = SystemClock()
        ways = CacheWays(
            request,
            self.client,
            self.store,
            self.store.build_cache,
            Teller(self.client, clock, first=-100),
            folder=self.folder,
            platform=host_platform(),
            login=nobody,
            now=clock.now,
        )
        await ways.open()
        parts = changed(self.lab.parts, cache=ways.cache, inline=ways.inline)
        done = await build(request, self.client, parts)
        await ways.export([self.store.find(one.image).layers for one in done.images])
        return done.images[0].image

    def warned(self) -> list[str]:
        return [said.code for said in self.client.heard if isinstance(said, BuildWarning)]


def put(path: str) -> None:
    Path(path).write_text(os.urandom(8).hex())


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[tuple[Host, Host]]:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with reopened(tmp_path / "a") as a, reopened(tmp_path / "b") as b:
        yield Host(a, tmp_path / "cache"), Host(b, tmp_path / "cache")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    with docker_registry(tmp_path / "registry") as port:
        yield f"127.0.0.1:{port}/cache:1"


def way(kind: str, **options: str) -> tuple[CacheWay, ...]:
    return (CacheWay(kind=kind, options=options),)  # type: ignore[arg-type]


async def test_cache_in_a_registry_spares_another_host_all_steps(
    two: tuple[Host, Host], registry: str
) -> None:
    one, other = two
    image = await one.build(cache_to=way("registry", ref=registry, mode="max"))
    assert sorted(one.lab.ran()) == sorted(ALL)
    assert await other.build(cache_from=way("registry", ref=registry)) == image
    assert other.lab.ran() == []
    assert other.warned() == []


async def test_cache_without_mode_has_the_steps_of_the_image_alone(
    two: tuple[Host, Host], registry: str
) -> None:
    one, other = two
    await one.build(cache_to=way("registry", ref=registry))
    await other.build(cache_from=way("registry", ref=registry))
    assert "two" not in other.lab.runner.ran and "one" in other.lab.runner.ran


async def test_cache_in_a_folder_is_an_oci_layout_and_only_what_is_needed_comes(
    two: tuple[Host, Host], tmp_path: Path
) -> None:
    one, other = two
    image = await one.build(cache_to=way("local", dest="ignored", mode="max", tag="v1"))
    assert one.client.numbers == [1], "after the outputs of the request"
    index = json.loads((tmp_path / "cache/index.json").read_bytes())
    digest = index["manifests"][0]["digest"].removeprefix("sha256:")
    manifest = json.loads((tmp_path / "cache/blobs/sha256" / digest).read_bytes())
    assert manifest["config"]["mediaType"] == CONFIG
    assert not (tmp_path / "cache/manifest.json").exists()
    assert await other.build(cache_from=way("local", src="ignored", tag="v1")) == image
    assert other.lab.ran() == []
    before = len(other.folder.copied)
    assert await other.build(cache_from=way("local", src="ignored", tag="v1")) == image
    assert len(other.folder.copied) == before


async def test_cache_that_another_tool_copied_is_imported(two: tuple[Host, Host], tmp_path: Path) -> None:
    one, other = two
    image = await one.build(cache_to=way("local", dest="x", mode="max", tag="v1"))
    words = ["skopeo", "copy", f"oci:{tmp_path}/cache:v1", f"oci:{tmp_path}/copied:v2"]
    await asyncio.to_thread(subprocess.run, words, check=True, capture_output=True, timeout=60)
    other.folder.folders[cache_context(0)] = tmp_path / "copied"
    assert await other.build(cache_from=way("local", src="x", tag="v2")) == image
    assert other.lab.ran() == [] and other.warned() == []


async def test_cache_in_the_image_itself_is_found_at_its_registry(
    two: tuple[Host, Host], registry: str
) -> None:
    one, other = two
    image = await one.build(cache_to=way("inline"), names=(registry,))
    await one.store.push(registry)
    again = await one.build(cache_to=way("inline"), names=(registry,))
    assert again == image, "all cached, the image is the same"
    assert await other.build(cache_from=way("registry", ref=registry), cache_to=way("inline")) != ""
    assert "two" not in other.lab.runner.ran
    plain = await one.build()
    assert plain != image, "an image without its cache is another one"


@pytest.mark.parametrize("trouble", ["nothing there", "an image", "wrong tag", "wrong blob"])
async def test_import_that_fails_is_told_and_the_build_is_done(
    two: tuple[Host, Host], registry: str, tmp_path: Path, trouble: str
) -> None:
    one, other = two
    ways = way("registry", ref=registry)
    if trouble == "an image":
        await one.build(names=(registry,))
        await one.store.push(registry)
    elif trouble != "nothing there":
        await one.build(cache_to=way("local", dest="x", mode="max"))
        ways = way("local", src="x", tag="2" if trouble == "wrong tag" else "latest")
    if trouble == "wrong blob":
        for path in (tmp_path / "cache/blobs/sha256").iterdir():
            if path.read_bytes()[:1] != b"{":
                path.write_bytes(path.read_bytes()[::-1])
    await other.build(cache_from=ways)
    assert sorted(other.lab.ran()) == sorted(ALL)
    assert other.warned() == ([] if trouble == "wrong blob" else ["CacheNotImported"])


async def test_export_that_fails_fails_the_build_unless_it_may(two: tuple[Host, Host]) -> None:
    one, _ = two
    nowhere = "127.0.0.1:1/cache:1"
    with pytest.raises(FlotaError):
        await one.build(cache_to=way("registry", ref=nowhere))
    await one.build(cache_to=way("registry", ref=nowhere, **{"ignore-error": "true"}))
    assert one.warned() == ["CacheNotExported"]


@pytest.mark.parametrize(
    "options", [{"mode": "most"}, {"ignore-error": "perhaps"}, {"image-manifest": "false"}, {"modus": "max"}]
)
async def test_option_that_means_nothing_is_refused_before_the_build(
    two: tuple[Host, Host], options: dict[str, str]
) -> None:
    with pytest.raises(InvalidInput):
        await two[0].build(cache_to=way("registry", ref="x/y", **options))
    assert two[0].lab.ran() == []
