"""What we make of images is valid by the image specification's schemas, and to tools that others wrote."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from image.commit import Commit
from image.store import ImageStore
from model.image import ImageConfig
from model.spec import ExecProbe, HealthCheck
from tests.kernel.test_image_oracles import run
from tests.support.buildstore import StoreLab
from tests.support.images import chunks
from tests.support.imagestores import ARCHIVE, BASE, BUILT
from tests.support.killedcalls import COMMANDS, DOCKERFILE
from tests.support.ocischemas import faults
from tests.support.registry import FakeRegistry

pytestmark = pytest.mark.kernel
FULL = ImageConfig(
    cmd=("/bin/sh", "-c", "true"),
    entrypoint=("/bin/env",),
    env=("PATH=/bin", "EMPTY="),
    exposed_ports=("80/tcp", "53/udp"),
    health=HealthCheck(probe=ExecProbe(args=("true",)), interval=5.0),
    labels={"org.example.note": "ä\n"},
    shell=("/bin/sh", "-ec"),
    stop_signal="SIGINT",
    user="1000:1000",
    volumes=("/data",),
    workdir="/srv",
)


async def imported(store: ImageStore, registry: FakeRegistry) -> str:
    return (await store.import_tar(chunks(BASE), ref=f"{registry.host}/sent:1")).id


async def committed(store: ImageStore, registry: FakeRegistry) -> str:
    base = await store.import_tar(chunks(BASE), ref="base")
    await store.prepare_root("c", base.id)
    root = Path((await store.mount_root("c")).path)
    (root / "new").write_bytes(b"new")
    wish = Commit(
        config=FULL, ref=f"{registry.host}/sent:1", author="A", message="M", created_by="sh", at=1e9 + 0.5
    )
    return (await store.commit("c", wish)).id


async def loaded(store: ImageStore, registry: FakeRegistry) -> str:
    """Of Docker's form: its manifest is ours."""
    made = await store.load(chunks(ARCHIVE))
    await store.tag(made[0].id, f"{registry.host}/sent:1")
    return made[0].id


async def pulled_over_another_compression(store: ImageStore, registry: FakeRegistry) -> str:
    """The layer is here in another form than the manifest names, so one is made anew."""
    await store.import_tar(chunks(BASE), ref="base")
    made = await store.pull(f"{registry.host}/app:1")
    await store.tag(made.id, f"{registry.host}/sent:1")
    return made.id


async def built(store: ImageStore, registry: FakeRegistry) -> str:
    """By a Dockerfile of several stages."""
    lab = StoreLab(store, **COMMANDS)
    return (await lab.image(DOCKERFILE, names=(f"{registry.host}/sent:1",))).id


SOURCES = [imported, committed, loaded, pulled_over_another_compression, built]
Source = Callable[[ImageStore, FakeRegistry], Awaitable[str]]


@pytest.mark.parametrize("source", SOURCES)
async def test_pushed_manifest_and_configuration_are_valid_by_their_schemas(
    store: ImageStore, registry: FakeRegistry, source: Source
) -> None:
    ident = await source(store, registry)
    await store.push(f"{registry.host}/sent:1")
    _, manifest = registry.manifests["1"]
    assert faults("image-manifest", manifest) == []
    assert json.loads(manifest)["config"]["digest"] == ident
    assert faults("config", registry.blobs[ident]) == []


@pytest.mark.parametrize("source", SOURCES)
async def test_saved_archive_is_valid_by_its_schemas_and_to_other_tools(
    store: ImageStore, registry: FakeRegistry, tmp_path: Path, source: Source
) -> None:
    ident = await source(store, registry)
    layout = tmp_path / "layout"
    with open(tmp_path / "saved.tar", "wb") as file:
        async for piece in store.save([f"{registry.host}/sent:1"]):
            file.write(piece)
    with tarfile.open(tmp_path / "saved.tar") as archive:
        archive.extractall(layout, filter="data")
    assert faults("image-layout", (layout / "oci-layout").read_bytes()) == []
    assert faults("image-index", (layout / "index.json").read_bytes()) == []
    (entry,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    manifest = (layout / "blobs/sha256" / entry["digest"][7:]).read_bytes()
    assert faults("image-manifest", manifest) == []
    assert faults("config", (layout / "blobs/sha256" / ident[7:]).read_bytes()) == []
    await run("oci-image-tool", "validate", "--type", "image", "--ref", "name=1", layout)
    lines = json.loads(await run("umoci", "stat", "--image", f"{layout}:1", "--json"))["history"]
    layers = [line["layer"]["digest"] for line in lines or () if line["layer"]]
    assert lines is None or layers == [layer["digest"] for layer in json.loads(manifest)["layers"]]


def test_schemas_refuse_what_is_not_valid() -> None:
    """The measure itself."""
    for kind, key in (("image-manifest", "config"), ("config", "rootfs")):
        good = json.loads(BUILT.manifest if kind == "image-manifest" else BUILT.config)
        assert faults(kind, json.dumps(good).encode()) == []  # type: ignore[arg-type]
        del good[key]
        assert faults(kind, json.dumps(good).encode()) != []  # type: ignore[arg-type]
