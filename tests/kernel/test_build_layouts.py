"""A build on one image store begins with what another has saved as an OCI layout."""

from __future__ import annotations

import dataclasses
import os
import tarfile
from pathlib import Path

import pytest

from agent.build.folder import ClientFolder
from image.build.clientlayout import Layouts
from image.store import ImageStore
from model.build import Context
from tests.component.test_build_layouts import Client
from tests.support.buildstore import StoreLab
from tests.support.imagestores import reopened, tree

pytestmark = pytest.mark.kernel


async def saved(store: ImageStore, ref: str, folder: Path) -> Path:
    with open(folder / "saved.tar", "wb") as file:
        async for piece in store.save([ref]):
            file.write(piece)
    with tarfile.open(folder / "saved.tar") as archive:
        archive.extractall(folder / "layout", filter="data")
    return folder / "layout"


def put(path: str) -> None:
    Path(path).write_text("put")


async def test_layers_of_a_layout_come_once_and_go_with_the_build(store: ImageStore, tmp_path: Path) -> None:
    it = StoreLab(store, base=lambda root: put(f"{root}/base"))
    await it.build("FROM scratch\nRUN base\n", names=("base:1",))
    layout = await saved(store, "base:1", tmp_path)
    os.makedirs(tmp_path / "b")
    async with reopened(tmp_path / "b") as other:
        there = StoreLab(other, top=lambda root: put(f"{root}/top"))
        contexts = (Context(), Context(name="tools", kind="layout", ref=f"{layout}:1"))
        client = Client(tmp_path / "objects", tools=layout)
        layouts = Layouts(contexts, ClientFolder(client, client.objects), other.bring)
        there.parts = dataclasses.replace(there.parts, layouts=layouts)
        image = await there.image("FROM tools\nRUN top\n", contexts=contexts, names=("top:1",))
        assert [one.names for one in other.list()] == [("docker.io/library/top:1",)]
        await other.prepare_root("c" * 64, image.id)
        try:
            root = await other.mount_root("c" * 64)
            assert tree(root.path) == {"base": b"put", "top": b"put"}
        finally:
            await other.remove_root("c" * 64)
        asked = len(client.scanned)
        await there.image("FROM tools\nRUN top\n", contexts=contexts)
        assert there.ran() == ["top"], "the layout's layers are known by their content"
        assert not layers_in(layout) & {path for _, (path,) in client.scanned[asked:]}


def layers_in(layout: Path) -> set[str]:
    """Paths of the blobs that are no documents."""
    blobs = layout / "blobs/sha256"
    return {f"blobs/sha256/{path.name}" for path in blobs.iterdir() if path.read_bytes()[:1] != b"{"}
