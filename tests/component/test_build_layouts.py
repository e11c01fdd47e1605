"""Builds that begin with an image in an OCI layout of the client: real folders, real object stores."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import io
import json
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.build.folder import ClientFolder
from image.build.base import Session
from image.build.clientlayout import Layouts
from image.build.fake import FakeSession
from image.context.scan import Scanner
from image.context.serve import FolderSource
from image.pull import Downloads
from image.registry.source import Remote
from model.build import BuildRequest, Context, Done
from model.errors import Damaged, FlotaError, NotFound, Unsupported
from tests.component.test_cli_build import Kept, app, builds_by, fleet, requested
from tests.support.builds import Lab
from tests.support.contexts import brought, store
from tests.support.images import (
    INDEX,
    MANIFEST,
    descriptor,
    digest,
    folder,
    image,
    index,
    member,
    oci_archive,
    tar,
)
from tests.support.servedfleet import ServedFleet

__all__ = ["app", "fleet"]
LAYER = tar(folder("etc"), member("etc/issue", b"base"))
BUILT = image([LAYER], config={"Env": ["FROM_LAYOUT=1"]})
BLOB = gzip.compress(LAYER, 1, mtime=0)
TEXT = "FROM tools\nRUN use\n"
NAME = "org.opencontainers.image.ref.name"


def unpacked(top: Path, tag: str = "latest") -> Path:
    """BUILT as an OCI layout in a folder."""
    with tarfile.open(fileobj=io.BytesIO(oci_archive(BUILT))) as archive:
        archive.extractall(top, filter="data")
    return named(top, {tag: (BUILT.manifest, MANIFEST)})


def named(top: Path, tags: dict[str, tuple[bytes, str]]) -> Path:
    for data, _ in tags.values():
        (top / "blobs/sha256" / digest(data)[7:]).write_bytes(data)
    entries = [descriptor(data, kind, annotations={NAME: tag}) for tag, (data, kind) in tags.items()]
    (top / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    return top


class Client(FakeSession):
    """Its contexts are folders; what it sends is kept in `objects`."""

    def __init__(self, objects: Path, **folders: Path) -> None:
        super().__init__()
        self.objects = store(objects)
        self.lease = self.objects.lease()
        self.sources = {name: FolderSource(Scanner(os.fspath(top))) for name, top in folders.items()}

    async def scan(self, context: str, paths: Sequence[str]) -> str:
        self.scanned.append((context, tuple(paths)))
        return await brought(self.sources[context], self.objects, self.lease, *paths)


class Host(Lab):
    """`brought` are the layers' bytes that it got of the client."""

    def __init__(self, client: Client, scratch: Path) -> None:
        super().__init__()
        self.client = client
        self.scratch = scratch
        self.brought: list[bytes] = []

    async def bring(self, remote: Remote, source: Downloads) -> None:
        for layer in remote.layers:
            await source.download(remote, layer, self.scratch, lambda _: None)
            self.brought.append(self.scratch.read_bytes())

    async def begun(self, ref: str, text: str = TEXT, **wishes: Any) -> Done:
        contexts = (Context(), Context(name="tools", kind="layout", ref=ref))
        layouts = Layouts(contexts, ClientFolder(self.client, self.client.objects), self.bring)
        self.parts = dataclasses.replace(self.parts, layouts=layouts)
        return await self.build(text, session=self.client, contexts=contexts, **wishes)


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    return unpacked(tmp_path / "layout")


@pytest.fixture
def host(tmp_path: Path, layout: Path) -> Host:
    return Host(Client(tmp_path / "objects", tools=layout), tmp_path / "blob")


async def test_stage_begins_with_the_image_of_a_layout(host: Host) -> None:
    done = await host.begun("/any/where")
    made = host.images.images[done.images[0].image]
    assert made.config.env[0] == "FROM_LAYOUT=1"
    assert len(made.layers) == 2 and host.brought == [BLOB]
    assert "[1/2] FROM oci-layout://tools" in host.names()
    assert [name for ref in host.images.list() for name in ref.names if "tools" in name] == []
    assert not +host.snapshots.held, "what the build held of it is let go"


async def test_copy_and_mount_read_the_image_of_a_layout(host: Host) -> None:
    host.runner.contents["/etc/issue"] = "base"
    text = "FROM scratch\nCOPY --from=tools /etc/issue /\nRUN --mount=from=tools,target=/t use\n"
    await host.begun("x", text)
    assert host.ran() == ["copy /etc/issue", "use"] and len(host.brought) == 1


async def test_layout_is_read_by_tag_or_digest_and_nothing_else_of_it(host: Host, layout: Path) -> None:
    (layout / "private").write_bytes(b"not asked for")
    named(layout, {"v1": (BUILT.manifest, MANIFEST), "other": (b"{}", MANIFEST)})
    await host.begun("x:v1")
    await host.begun(f"x@{digest(BUILT.manifest)}")
    asked = {path for _, paths in host.client.scanned for path in paths}
    assert asked == {
        "index.json",
        *(f"blobs/sha256/{digest(one)[7:]}" for one in (BUILT.manifest, BUILT.config, BLOB)),
    }
    with pytest.raises(NotFound, match="nothing with the tag latest") as error:
        await host.begun("x")
    assert "other, v1" in error.value.hint


async def test_layout_of_several_platforms_gives_the_one_that_is_built(host: Host, layout: Path) -> None:
    arm = image([LAYER], arch="arm64")
    listed = index((arm, "arm64"), (BUILT, "amd64"))
    named(layout, {"latest": (listed, INDEX)})
    done = await host.begun("x")
    assert host.images.images[done.images[0].image].config.env[0] == "FROM_LAYOUT=1"
    with pytest.raises(Unsupported, match="only for linux/amd64, linux/arm64"):
        await host.begun("x", platforms=("linux/s390x",))


@pytest.mark.parametrize("which", ["manifest", "config", "blob"])
async def test_layout_whose_blob_is_another_ends_the_build(host: Host, layout: Path, which: str) -> None:
    data = {"manifest": BUILT.manifest, "config": BUILT.config, "blob": BLOB}[which]
    place = layout / "blobs/sha256" / digest(data)[7:]
    place.write_bytes(data[:-1] + b" ")
    with pytest.raises(Damaged, match=r"digest|not what its name says"):
        await host.begun("x")
    assert host.ran() == []


async def test_layout_that_lacks_a_blob_says_which(host: Host, layout: Path) -> None:
    (layout / "blobs/sha256" / digest(BUILT.config)[7:]).unlink()
    with pytest.raises(FlotaError, match=digest(BUILT.config)[7:20]):
        await host.begun("x")


async def test_index_that_is_too_deep_is_refused(host: Host, layout: Path) -> None:
    inner = BUILT.manifest
    media = MANIFEST
    tags: dict[str, tuple[bytes, str]] = {}
    for depth in range(5):
        platform = {"os": "linux", "architecture": "amd64"}
        entry = descriptor(inner, media, platform=platform)
        inner = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).encode()
        media, tags = INDEX, tags | {f"v{depth}": (inner, INDEX)}
    named(layout, tags)
    with pytest.raises(Damaged, match="nested deeper"):
        await host.begun("x:v4")


async def test_name_of_a_layout_in_a_dockerfile_alone_means_nothing(host: Host) -> None:
    with pytest.raises(FlotaError, match="oci-layout"):
        await host.build("FROM oci-layout://tools\n")


async def test_materials_name_the_layout_by_its_digest(host: Host) -> None:
    done = await host.begun("x", provenance="min")
    [said] = [json.loads(text) for key, text in done.metadata.items() if "provenance" in key]
    assert {"uri": f"pkg:oci/tools?digest=sha256%3A{digest(BUILT.manifest)[7:]}&platform=linux%2Famd64",
            "digest": {"sha256": digest(BUILT.manifest)[7:]}} in said["materials"]  # fmt: skip


def test_command_line_gives_the_folder_of_a_layout(
    fleet: ServedFleet, app: Path, layout: Path, tmp_path: Path
) -> None:
    kept = Kept(fleet, tmp_path / "received")

    async def reading(request: BuildRequest, session: Session) -> Done:
        async with asyncio.timeout(60):
            await session.scan("tools", ["index.json"])
        return Done()

    builds_by(fleet, reading)
    fleet.ok("build", "--build-context", f"tools=oci-layout://{layout}:v1", str(app))
    assert kept.files == {"index.json": (layout / "index.json").read_bytes()}
    assert requested(fleet).contexts[1] == Context(name="tools", kind="layout", ref=f"{layout}:v1")


def test_command_line_refuses_what_is_no_layout(fleet: ServedFleet, app: Path) -> None:
    done = fleet.flota("build", "--build-context", f"tools=oci-layout://{app}", str(app))
    assert done.returncode == 1 and b"no index.json in it" in done.stderr
