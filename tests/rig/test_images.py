"""Images on a fleet: pulled from Debian's docker-registry, loaded from archives of skopeo, run, removed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.fleet import Fleet
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig
REGISTRY = "127.0.0.1:5000"
CONFIG = """\
version: 0.1
storage:
  filesystem:
    rootdirectory: {folder}
http:
  addr: 127.0.0.1:5000
"""


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OCI layout with busybox in it, made by umoci."""
    folder = tmp_path_factory.mktemp("layout") / "oci"
    image = f"{folder}:1"
    subprocess.run(["umoci", "init", "--layout", str(folder)], check=True)
    subprocess.run(["umoci", "new", "--image", image], check=True)
    for target in ("/bin/busybox", "/bin/sh", "/bin/echo"):
        subprocess.run(["umoci", "insert", "--image", image, "/bin/busybox", target], check=True)
    words = ["--config.cmd", "/bin/echo", "--config.cmd", "from the image", "--config.env", "A=b"]
    subprocess.run(["umoci", "config", "--image", image, *words], check=True)
    return folder


@pytest.fixture(scope="module")
def registry(fleet: Fleet, layout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """docker-registry on n1's loopback, holding the image."""
    folder = tmp_path_factory.mktemp("registry")
    config = folder / "config.yml"
    config.write_text(CONFIG.format(folder=folder / "data"))
    process = fleet.rig.spawn("n1", ["docker-registry", "serve", str(config)], log=str(folder / "log"))
    push = [
        "skopeo",
        "copy",
        "--dest-tls-verify=false",
        f"oci:{layout}:1",
        f"docker://{REGISTRY}/tools/box:1",
    ]
    wait_until(lambda: fleet.rig.exec("n1", push, check=False).returncode == 0, deadline=20, what="push")
    yield REGISTRY
    process.terminate()
    process.wait(10)


def test_an_image_is_pulled_from_a_registry_and_runs(clean: Fleet, registry: str) -> None:
    name = f"{registry}/tools/box:1"
    assert name in clean.flota("n1", "pull", "--node", "n1", name)
    assert clean.flota("n1", "run", "--rm", "--node", "n1", name).strip() == "from the image"
    found = clean.json("images")
    assert [i["host"] for i in found if name in i["image"]["names"]] == ["n1"]
    assert "Deleted" in clean.flota("n1", "rmi", "--node", "n1", name)


def test_a_run_pulls_what_its_host_lacks(clean: Fleet, registry: str) -> None:
    name = f"{registry}/tools/box:1"
    assert clean.flota("n1", "run", "--rm", "--node", "n1", name, "/bin/echo", "hi").strip() == "hi"
    missing = clean.attempt("n1", "run", "--rm", "--node", "n1", f"{registry}/tools/box:2")
    assert missing.returncode == 125 and b"tools/box:2" in missing.stderr


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive"])
def test_an_archive_of_skopeo_is_loaded_on_every_host(
    clean: Fleet, layout: Path, tmp_path: Path, kind: str
) -> None:
    archive = tmp_path / "image.tar"
    target = f"{kind}:{archive}:loaded/box:{kind[0]}"
    subprocess.run(["skopeo", "copy", f"oci:{layout}:1", target], check=True)
    clean.flota("n1", "load", "-i", str(archive))
    for host in ("n1", "n2", "n3"):
        said = clean.flota("n1", "run", "--rm", "--node", host, f"loaded/box:{kind[0]}")
        assert said.strip() == "from the image"


def test_a_damaged_archive_is_refused_and_leaves_nothing(clean: Fleet, layout: Path, tmp_path: Path) -> None:
    """With a layer that no host has yet: one that is there already is not read again."""
    archive, fresh = tmp_path / "image.tar", tmp_path / "oci"
    shutil.copytree(layout, fresh)
    (tmp_path / "noise").write_bytes(os.urandom(8 << 20))
    subprocess.run(
        ["umoci", "insert", "--image", f"{fresh}:1", str(tmp_path / "noise"), "/noise"], check=True
    )
    subprocess.run(["skopeo", "copy", f"oci:{fresh}:1", f"oci-archive:{archive}:bad:1"], check=True)
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 0xFF
    archive.write_bytes(data)
    before = clean.json("images")
    done = clean.attempt("n1", "load", "-i", str(archive))
    assert done.returncode == 1 and b"Traceback" not in done.stderr
    assert clean.json("images") == before


def test_an_unknown_registry_is_named(clean: Fleet) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    done = clean.attempt("n1", "pull", "--node", "n1", f"127.0.0.1:{port}/x:1")
    assert done.returncode == 1 and str(port).encode() in done.stderr
