"""Builds on a fleet that begin with files of this machine, and give files back to it."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from deploy.fleet import Fleet
from tests.rig.conftest import IMAGE

pytestmark = pytest.mark.rig


def test_image_that_was_saved_is_begun_with_from_its_layout(clean: Fleet, tmp_path: Path) -> None:
    archive, layout, app = tmp_path / "saved.tar", tmp_path / "layout", tmp_path / "app"
    clean.flota("n1", "save", "-o", str(archive), IMAGE)
    with tarfile.open(archive) as tar:
        tar.extractall(layout, filter="data")
    app.mkdir()
    (app / "Dockerfile").write_text(
        "FROM tools AS made\nRUN echo it > /file\nFROM scratch\nCOPY --from=made /file /\n"
    )
    [entry] = json.loads((layout / "index.json").read_text())["manifests"]
    tag = entry["annotations"]["org.opencontainers.image.ref.name"]
    before = {row["name"] for row in clean.json("images")}
    for place in (f"{layout}:{tag}", f"{layout}@{entry['digest']}"):
        words = ("--build-context", f"tools=oci-layout://{place}", "-o", str(tmp_path / "out"))
        clean.flota("n1", "build", "--host", "n2", *words, str(app))
        assert (tmp_path / "out/file").read_text() == "it\n"
        (tmp_path / "out/file").unlink()
    assert {row["name"] for row in clean.json("images")} == before


def test_files_of_two_platforms_come_in_a_folder_each(clean: Fleet, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/Dockerfile").write_text("FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /arch\n")
    for arch in ("amd64", "arm64"):
        (tmp_path / "app" / arch).write_text(arch)
    both = ("--platform", "linux/amd64,linux/arm64")
    root = tmp_path / "root.tar"
    outputs = ("-o", str(tmp_path / "out"), "-o", f"type=tar,dest={root}")
    clean.flota("n1", "build", *both, *outputs, str(tmp_path / "app"))
    found = {path.parent.name: path.read_text() for path in (tmp_path / "out").rglob("arch")}
    assert found == {"linux_amd64": "amd64", "linux_arm64": "arm64"}
    with tarfile.open(root) as tar:
        assert {"linux_amd64/arch", "linux_arm64/arch"} <= set(tar.getnames())
